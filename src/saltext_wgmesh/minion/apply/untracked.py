"""The firewall table of a relay as part of an apply: it is written, replaced or removed, and never fails the apply."""

from __future__ import annotations

import logging

from saltext_wgmesh.core.device.descriptions import ChangeText
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.system import relay_firewall
from saltext_wgmesh.minion.system.host import Host

log = logging.getLogger(__name__)


def apply_table(host: Host, view: View, *, dry_run: bool = False) -> tuple[ChangeText, ...]:
    """Make this node have the table that *view* asks for, or none; return what changed, or would change.

    A table that cannot be written is logged, and the watcher reports it: the mesh works without the table, unless a
    firewall of the relay drops what it cannot track.
    """
    try:
        found = relay_firewall.pending(host, view)
        if found is not None and not dry_run:
            relay_firewall.write(host, view, found)
    except HostError as error:
        log.warning("%s: relayed packets stay tracked by connection: %s", view.mesh, error)
        return ()
    return (_text(*found),) if found is not None else ()


def remove_table(host: Host, mesh: str, *, dry_run: bool = False) -> tuple[ChangeText, ...]:
    """Delete the table of *mesh*; return what changed, or would change. HostError if ``nft`` refuses it."""
    name = relay_firewall.remove(host, mesh, dry_run=dry_run)
    return (_text(name, "present", None),) if name else ()


def _text(name: str, old: str | None, new: str | None) -> ChangeText:
    return ChangeText(subject="nft", item=f"table inet {name}", old=old, new=new)
