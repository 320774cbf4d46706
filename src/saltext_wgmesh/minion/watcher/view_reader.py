"""Reads a view in slices: that of a relay has a peer and a route for each node of its mesh."""

from __future__ import annotations

import json
from dataclasses import replace

from saltext_wgmesh.core.errors import ViewError
from saltext_wgmesh.core.model.view import Interface, Route, View
from saltext_wgmesh.core.model.view_migration import migrate_view
from saltext_wgmesh.minion.system import files
from saltext_wgmesh.minion.watcher.slices import Steps, groups_of


def view_steps(text: str) -> Steps[View]:
    """Return the view in the JSON *text* of a file. ViewError if it is none."""
    try:
        raw = migrate_view(json.loads(text))
        yield None
        head = View.from_dict({**raw, "interfaces": [], "routes": []})
        interfaces: list[Interface] = []
        for interface in raw["interfaces"]:
            empty = {**raw, "routes": [], "interfaces": [{**interface, "peers": []}]}
            made = View.from_dict(empty).interfaces[0]
            peers = list(made.peers)
            for group in groups_of(interface["peers"]):
                part = {**raw, "routes": [], "interfaces": [{**interface, "peers": group}]}
                peers += View.from_dict(part).interfaces[0].peers
                yield None
            interfaces.append(replace(made, peers=tuple(peers)))
        routes: list[Route] = []
        for group in groups_of(raw["routes"]):
            routes += View.from_dict({**raw, "interfaces": [], "routes": group}).routes
            yield None
    except files.DAMAGE as error:
        raise ViewError(f"the view is damaged ({error!r}): apply again") from error
    return replace(head, interfaces=tuple(interfaces), routes=tuple(routes))
