"""The pillar as the master compiles it now, where the minion's own copy may be outdated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import salt.pillar


def pillar(opts: dict[str, Any], grains: Mapping[str, Any]) -> dict[str, Any]:
    """The pillar of the minion with these *opts* and *grains*, compiled now by its master.

    ``pillar.get`` and ``pillar.items`` mask values since Salt 3008, and a refresh would reload modules and beacons.
    """
    saltenv, pillarenv = opts.get("saltenv"), opts.get("pillarenv")
    return salt.pillar.get_pillar(opts, dict(grains), opts["id"], saltenv, pillarenv=pillarenv).compile_pillar()
