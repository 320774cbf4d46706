"""The pillar as the master compiles it now, where the minion's own copy may be outdated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import salt.pillar

from saltext_wgmesh.core.errors import HostError


def pillar(opts: dict[str, Any], grains: Mapping[str, Any]) -> dict[str, Any]:
    """The pillar of the minion with these *opts* and *grains*, compiled now by its master.

    ``pillar.get`` and ``pillar.items`` mask values since Salt 3008, and a refresh would reload modules and beacons.
    """
    saltenv, pillarenv = opts.get("saltenv"), opts.get("pillarenv")
    return salt.pillar.get_pillar(opts, dict(grains), opts["id"], saltenv, pillarenv=pillarenv).compile_pillar()


def is_masterless(opts: Mapping[str, Any]) -> bool:
    """Whether this is a run without a master: ``salt-call --local``, or a minion that is configured for none."""
    is_local = opts.get("file_client") == "local" and not opts.get("use_master_when_local")
    return opts.get("master_type") == "disable" or (is_local and opts.get("__cli") == "salt-call")


def require_master(opts: Mapping[str, Any], purpose: str) -> None:
    """Return if there is a master; HostError that names the *purpose* for which one is needed."""
    if is_masterless(opts):
        raise HostError(
            f"{purpose} needs the master, and this run is without one: call it without --local, on a minion that has "
            "neither 'file_client: local' nor 'master_type: disable'"
        )
