"""What the master says now, where what a minion holds of it may be from before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import salt.pillar


def pillar(opts: dict[str, Any], grains: Mapping[str, Any]) -> dict[str, Any]:
    """The pillar of the minion with these *opts* and *grains*, compiled now by its master.

    Not by ``pillar.get`` or ``pillar.items``, which mask from Salt 3008 on, nor by a refresh, which would reload
    modules and beacons.
    """
    saltenv, pillarenv = opts.get("saltenv"), opts.get("pillarenv")
    return salt.pillar.get_pillar(opts, dict(grains), opts["id"], saltenv, pillarenv=pillarenv).compile_pillar()
