"""What the beacon does at each call, timed on the node itself: ``looks.py <calls>``, with a view on standard input.

The view is applied first, so the device and its peers are real. Prints milliseconds by kind of call, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from types import MappingProxyType

from saltext_wgmesh.core.linkstate import Link, LinkReport, LinkState
from saltext_wgmesh.core.types import View
from saltext_wgmesh.minion import apply, keys, linkfile
from saltext_wgmesh.minion.host import Host
from saltext_wgmesh.minion.signals import Signals


def measure(view: View, calls: int) -> dict[str, list[float]]:
    """Calls with the watcher's file, calls without a watcher, and comparisons of the node with its view."""
    host = Host()
    keys.ensure(host)
    apply.apply(host, view)
    linkfile.write(host, _watched(view))
    found = {"watched": _looks(host, calls)}
    linkfile.remove(host, view.mesh)
    found["unwatched"] = _looks(host, calls)
    found["drift"] = [_milliseconds(lambda: apply.apply(host, view, dry_run=True)) for _ in range(calls)]
    return found


def _looks(host: Host, calls: int) -> list[float]:
    """Of one process with its memory, as in a minion; the first call is not counted."""
    memory = Signals()
    return [_milliseconds(lambda: memory.look(host)) for _ in range(calls + 1)][1:]


def _milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def _watched(view: View) -> LinkReport:
    up = {
        peer.node: Link(neighbour=peer.node, interface=i.name, state=LinkState.UP, since=time.time(), interval=100)
        for i in view.interfaces
        for peer in i.peers
    }
    return LinkReport(mesh=view.mesh, watched=True, links=MappingProxyType(dict(sorted(up.items()))))


if __name__ == "__main__":
    print(json.dumps(measure(View.from_dict(json.load(sys.stdin)), int(sys.argv[1]))))
