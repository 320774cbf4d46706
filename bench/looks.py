"""The beacon's work at each call, timed on the node itself: ``looks.py <calls>``, with a view on standard input.

The view is applied first, so the device and its peers are real. The output is milliseconds by kind of call, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from types import MappingProxyType

from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState, LinkStatus
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.apply import apply
from saltext_wgmesh.minion.reporting.events import EventSource
from saltext_wgmesh.minion.state import keys, link_report_file
from saltext_wgmesh.minion.system.host import Host


def measure(view: View, calls: int) -> dict[str, list[float]]:
    """Return the milliseconds of calls with the watcher's report, calls without it, and comparisons with the view."""
    host = Host()
    keys.ensure(host)
    apply.apply(host, view)
    link_report_file.write_report(host, _watched(view))
    found = {"watched": _looks(host, calls)}
    link_report_file.remove_report(host, view.mesh)
    found["unwatched"] = _looks(host, calls)
    found["drift"] = [_milliseconds(lambda: apply.apply(host, view, dry_run=True)) for _ in range(calls)]
    return found


def _looks(host: Host, calls: int) -> list[float]:
    """Return the milliseconds of calls in one process, as in a minion. The first call is not counted."""
    source = EventSource()
    return [_milliseconds(lambda: source.poll(host)) for _ in range(calls + 1)][1:]


def _milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def _watched(view: View) -> LinkReport:
    up = {
        peer.node: LinkStatus(
            neighbour=peer.node, interface=i.name, state=LinkState.UP, since=time.time(), interval=100
        )
        for i in view.interfaces
        for peer in i.peers
    }
    return LinkReport(mesh=view.mesh, from_watcher=True, links=MappingProxyType(dict(sorted(up.items()))))


if __name__ == "__main__":
    print(json.dumps(measure(View.from_dict(json.load(sys.stdin)), int(sys.argv[1]))))
