"""The file in which the watcher of this node says how the links of a mesh are."""

from __future__ import annotations

import functools
import json
import time
from pathlib import Path

from saltext_wgmesh.core.errors import ViewError
from saltext_wgmesh.core.linkstate import LinkReport
from saltext_wgmesh.minion import files
from saltext_wgmesh.minion.host import Host

TOO_OLD = 60.0
"""Seconds without a sign of life after which what the file says is not believed any more."""


def path(host: Host, mesh: str) -> Path:
    """Where it lies: in memory, since a reboot makes it void."""
    return host.run_dir / f"{mesh}.json"


def read(host: Host, mesh: str) -> LinkReport | None:
    """What the watcher says; None if none runs, or it says nothing that can be read."""
    where = path(host, mesh)
    try:
        if abs(time.time() - where.stat().st_mtime) > TOO_OLD:
            return None
        return _parsed(where.read_text())
    except (OSError, ValueError, ViewError):
        return None


def watched(host: Host, mesh: str) -> bool:
    """Whether a watcher runs."""
    report = read(host, mesh)
    return report is not None and report.watched


@functools.lru_cache(maxsize=8)
def _parsed(text: str) -> LinkReport:
    """Kept, since the beacon reads the same text each second."""
    return LinkReport.from_dict(json.loads(text))


def write(host: Host, report: LinkReport) -> None:
    """The file says *report*, whole."""
    where = path(host, report.mesh)
    where.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    partial = where.with_name(f".{where.name}")
    partial.write_text(json.dumps(report.as_dict()))
    partial.replace(where)


def remove(host: Host, mesh: str) -> None:
    """There is no such file."""
    files.remove(path(host, mesh))
