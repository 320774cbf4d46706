"""The pillar as the master compiles it now, where the minion's own copy may be outdated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import salt.pillar

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.errors import HostError


def pillar(opts: dict[str, Any], grains: Mapping[str, Any]) -> dict[str, Any]:
    """The pillar of the minion with these *opts* and *grains*, compiled now by its master.

    ``pillar.get`` and ``pillar.items`` mask values since Salt 3008, and a refresh would reload modules and beacons.
    """
    saltenv, pillarenv = opts.get("saltenv"), opts.get("pillarenv")
    # Without a master, Salt 3008 adds what it compiles to the pillar in opts, so keys that are gone would stay.
    fresh = {key: value for key, value in opts.items() if key != "pillar"}
    return salt.pillar.get_pillar(fresh, dict(grains), opts["id"], saltenv, pillarenv=pillarenv).compile_pillar()


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


def failed_run(compiled: Mapping[str, Any]) -> Mapping[str, Any]:
    """The last run of the master, if it failed, as the pillar key has it; empty if it did not."""
    failed = compiled.get(constants.PILLAR_FAILED_RUN)
    return failed if isinstance(failed, Mapping) and {"reason", "run"} <= failed.keys() else {}


def refusal(opts: Mapping[str, Any], grains: Mapping[str, Any], failed_before: Mapping[str, Any]) -> str | None:
    """Why the master has no view for any node; None as long as no run has failed after *failed_before*.

    That run failed before this node sent its event, and the policy may have been corrected since.
    """
    failed = failed_run(pillar(dict(opts), grains))
    return str(failed["reason"]) if failed and failed["run"] != failed_before.get("run") else None
