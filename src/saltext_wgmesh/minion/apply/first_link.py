"""Wait until this node hears a neighbour of each mesh that it has just applied."""

from __future__ import annotations

import time
from collections.abc import Iterable

from saltext_wgmesh.core.device import unheard, wg_cli
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.state import link_report_file
from saltext_wgmesh.minion.state.store import Store
from saltext_wgmesh.minion.system.host import Host

FIRST_LINK_POLL_INTERVAL = 0.5
"""Seconds."""


def await_first_links(host: Host, meshes: Iterable[str], patience: float) -> tuple[str, ...]:
    """Return for each of *meshes* in which no neighbour is heard within *patience* seconds the cause, in words.

    Empty as soon as each mesh has a neighbour that is heard, or has no neighbour at all. A master may push another view
    while this waits: the last one counts. HostError if WireGuard can't be asked.
    """
    deadline = time.monotonic() + patience
    silent = list(meshes)
    while True:
        # Read in each round: a mesh that the node is told to leave while this waits is no longer awaited.
        views = {mesh: view for mesh in silent if (view := Store(host=host, mesh=mesh).view())}
        tunnels = {mesh: _tunnels(host, view) for mesh, view in views.items()}
        silent = [
            mesh
            for mesh, found in tunnels.items()
            if not unheard.hears_any(found, link_report_file.read_report(host, mesh))
        ]
        if not silent or time.monotonic() >= deadline:
            return tuple(unheard.explain_silence(views[mesh], tunnels[mesh]) for mesh in silent)
        time.sleep(FIRST_LINK_POLL_INTERVAL)


def _tunnels(host: Host, view: View) -> tuple[unheard.Tunnel, ...]:
    names = {interface.name for interface in view.interfaces}
    devices = wg_cli.parse_dump(host.run("wg", "show", "all", "dump"))
    stats = [s for name, dumped in devices.items() if name in names for s in dumped.stats]
    return unheard.tunnels(view, stats)
