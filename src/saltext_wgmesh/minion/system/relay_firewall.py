"""A relay's own table of nftables, and what else on the node decides on the packets that it forwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.device import firewall, notrack
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.system.host import Host

LEGACY = {"ip_tables_names": "iptables-legacy", "ip6_tables_names": "ip6tables-legacy"}
"""File below /proc/net with the tables that the kernel has of it → the program that lists them."""


class Pending(NamedTuple):
    """A table that has to change."""

    name: str
    old: str | None
    """The mark of its rules, ``other`` if it has other rules, or None if there is no such table."""
    new: str | None
    """The mark that it is to have; None: it is to be deleted."""


def pending(host: Host, view: View) -> Pending | None:
    """Return how the table that *view* asks for differs from what this node has; None if nothing has to change.

    HostError if *view* asks for a table and ``nft`` is missing.
    """
    name, table = constants.nft_table(view.mesh), notrack.notrack_table(view)
    if not host.has("nft"):
        if table is None:
            return None
        raise HostError("'nft' is not installed on this node: install the package nftables")
    listing = _listing(host, name)
    old = None if not listing else "other rules"
    if table is None:
        return Pending(name, old, None) if listing else None
    return None if table.is_in(listing) else Pending(name, old, f"mark {table.mark}")


def write(host: Host, view: View, change: Pending) -> None:
    """Make *change*, which ``pending`` returned for *view*. HostError if ``nft`` refuses it."""
    table = notrack.notrack_table(view)
    host.run("nft", "-f", "-", text=table.script() if table else notrack.removal_script(change.name))


def remove(host: Host, mesh: str, *, dry_run: bool = False) -> str | None:
    """Delete the table of *mesh*; return its name, or None if there was none. HostError if ``nft`` refuses it.

    With *dry_run* the table stays.
    """
    name = constants.nft_table(mesh)
    if not host.has("nft") or not _listing(host, name):
        return None
    if not dry_run:
        host.run("nft", "-f", "-", text=notrack.removal_script(name))
    return name


def _listing(host: Host, name: str) -> str:
    """Return the rules of the table *name* as text; empty if there is no such table."""
    try:
        return host.run("nft", "list", "table", "inet", name)
    except HostError:
        # Whatever the reason was: to write the table fails with the same reason, if it lasts.
        return ""


def tracked_fault(error: HostError) -> str:
    """Return a sentence on a table that this node lacks because of *error*."""
    return f"relayed packets are tracked by connection, and a firewall here may drop them as invalid: {error}"


def table_fault(host: Host, view: View) -> str | None:
    """Make this node have the table of *view*; return in words why that failed, or None."""
    try:
        if change := pending(host, view):
            write(host, view, change)
    except HostError as error:
        return tracked_fault(error)
    return None


def forwarding_faults(host: Host, view: View) -> tuple[str, ...]:
    """Return in words what keeps this relay from forwarding, as far as the node can see; empty on other nodes."""
    if notrack.notrack_table(view) is None:
        return ()
    off = [key for key in firewall.forwarding_keys(view) if host.sysctl(key) == "0"]
    return (*([firewall.setting_fault(off)] if off else []), *_dropping(host, view), *_dropping_legacy(host, view))


def _dropping(host: Host, view: View) -> Iterator[str]:
    if not host.has("nft"):
        return
    try:
        for chain in firewall.forward_chains(host.run("nft", "-j", "list", "chains")):
            names = (chain.family, chain.table, chain.name)
            if not (chain.drops or firewall.ends_in_drop(host.run("nft", "-j", "list", "chain", *names))):
                continue
            if not firewall.names_mesh(host.run("nft", "list", "table", chain.family, chain.table), view):
                yield firewall.chain_fault(chain, view)
            elif way := firewall.one_way(host.run("nft", "list", "chain", *names), view):
                yield firewall.one_way_fault(chain, way)
    except (HostError, ValueError) as error:
        yield f"the rules of nftables cannot be read: {error}"


def _dropping_legacy(host: Host, view: View) -> Iterator[str]:
    """The same for rules that ``nft`` does not show. Where no program made any, they are not looked at: the look alone
    would load the kernel's module."""
    for tables, program in LEGACY.items():
        if not (_has_filter(host, tables) and host.has(program)):
            continue
        try:
            listing = host.run(program, "-S", "FORWARD")
        except HostError as error:
            yield f"the rules of {program} cannot be read: {error}"
            continue
        if firewall.legacy_drops(listing) and not firewall.names_mesh(listing, view):
            yield firewall.legacy_fault(program, view)


def _has_filter(host: Host, tables: str) -> bool:
    try:
        return "filter" in (host.proc_net / tables).read_text().split()
    except OSError:
        return False
