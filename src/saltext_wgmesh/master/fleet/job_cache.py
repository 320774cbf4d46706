"""The returns to a job, as the master's job cache has them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import salt.payload
import salt.utils.jid

from saltext_wgmesh.master.records.inventory import UNUSABLE_ENTRY

_LOCAL_CACHE = "local_cache"


def returns(client: Any, jid: str, nodes: Iterable[str]) -> dict[str, Any]:
    """Node → its return to the job *jid*, of those *nodes* whose returns have arrived. *client* is Salt's.

    The files of Salt's own job cache are read here. Salt's reader tries a file that it can't read until it can, so one
    that is damaged would hang a run for ever. It costs its own node the return.
    """
    if client.opts.get("master_job_cache", _LOCAL_CACHE) != _LOCAL_CACHE:
        found = client.get_cache_returns(jid)
        return {node: found[node]["ret"] for node in nodes if "ret" in found.get(node, {})}
    jobs = Path(client.opts["cachedir"], "jobs")
    folder = Path(salt.utils.jid.jid_dir(jid, str(jobs), client.opts["hash_type"]))
    read = {node: _return(folder / node / "return.p") for node in nodes}
    return {node: found["return"] for node, found in read.items() if found is not None}


def _return(path: Path) -> dict[str, Any] | None:
    """The content of the file, with the return under ``return``; None if there is none, or if it can't be read."""
    try:
        found = salt.payload.loads(path.read_bytes())
    except UNUSABLE_ENTRY:
        return None
    # Earlier versions of Salt wrote the return alone.
    return found if isinstance(found, dict) and "return" in found else {"return": found}
