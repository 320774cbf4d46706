"""The file in which the watcher of this node reports the links of a mesh."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Mapping
from pathlib import Path

from saltext_wgmesh.core.errors import ViewError, naming
from saltext_wgmesh.core.liveness.link_report import LinkReport
from saltext_wgmesh.minion.system import files, moment
from saltext_wgmesh.minion.system.host import Host

MAX_AGE = 60.0
"""Seconds after which a report that was not written again is void: its writer has ended."""
_BEFORE_MOMENT = '{"written": '


def report_path(host: Host, mesh: str) -> Path:
    """Return the path of the report. It lies in memory: a reboot makes it void."""
    return host.run_dir / f"{mesh}.json"


def read_report(host: Host, mesh: str) -> LinkReport | None:
    """Return the report of the watcher, or of the beacon where no watcher runs; None without a valid one."""
    where = report_path(host, mesh)
    try:
        first, line_break, rest = where.read_text().partition("\n")
        if not line_break:
            # The watcher of a former version wrote it, without the moment.
            return _parsed(first) if abs(time.time() - where.stat().st_mtime) <= MAX_AGE else None
        age = moment.decode_moment(first.removeprefix(_BEFORE_MOMENT).removesuffix(",")).age(host)
        return _parsed("{" + rest) if age is not None and age <= MAX_AGE else None
    except (OSError, ViewError, *files.DAMAGE):
        return None


def watcher_is_alive(host: Host, mesh: str) -> bool:
    """Return whether a watcher runs and watches *mesh*."""
    report = read_report(host, mesh)
    return report is not None and report.from_watcher


@functools.lru_cache(maxsize=8)
def _parsed(text: str) -> LinkReport:
    """Return the report in *text*. It is cached, since the beacon reads the same text each second."""
    return LinkReport.from_dict(json.loads(text))


def write_report(host: Host, report: LinkReport) -> None:
    """Write *report*, atomically."""
    _write(host, report.mesh, report.as_dict())


def write_links(
    host: Host, mesh: str, links: Mapping[str, Mapping[str, object]], relay_faults: tuple[str, ...] = ()
) -> None:
    """Write the watcher's report of *mesh*, atomically; *links* are neighbour → ``LinkStatus.as_dict``."""
    empty = LinkReport(mesh=mesh, from_watcher=True, relay_faults=relay_faults).as_dict()
    _write(host, mesh, {**empty, "links": links})


def _write(host: Host, mesh: str, raw: Mapping[str, object]) -> None:
    where = report_path(host, mesh)
    where.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    partial = where.with_name(f".{where.name}")
    try:
        with naming(where):
            # The moment has a line of its own, since the rest is parsed only where it differs.
            rest = json.dumps(raw).removeprefix("{")
            partial.write_text(f"{_BEFORE_MOMENT}{moment.present(host).encode()},\n{rest}")
            partial.replace(where)
    except OSError:
        # On a full disk half a file would keep the room that the next attempt needs.
        partial.unlink(missing_ok=True)
        raise


def remove_report(host: Host, mesh: str) -> None:
    """Delete the report of *mesh*."""
    files.remove_file(report_path(host, mesh))
