"""The WireGuard sessions of a mesh, and those among them that a change ended."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from .mesh import Mesh

SOONEST = 100
"""Seconds after which a session is renewed ordinarily, with a margin: 120 in the WireGuard whitepaper."""
SLACK = 10
"""Seconds within which both ends may renew one session, each by itself."""


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One peer on one interface of one node."""

    node: str
    interface: str
    peer: str
    """The node of the peer, or the peer's public key if no machine has it."""


@dataclass(frozen=True, slots=True)
class Session:
    """The state of a peer as WireGuard reports it. Of its keys only the public one is read."""

    key: str
    handshake: int
    """Seconds since the epoch; 0 for none."""
    rx: int
    tx: int


@dataclass(frozen=True, slots=True)
class Sessions:
    """All sessions of a mesh's members at one time, and the ifindex of each of their interfaces."""

    peers: Mapping[Entry, Session]
    interfaces: Mapping[tuple[str, str], int]


def sessions(mesh: Mesh) -> Sessions:
    """Return the present sessions."""
    underlay = mesh.lab.underlay
    # A node that is about to leave may not be a member here, but its name is needed.
    dumps = {n: underlay[n].run("wg", "show", "all", "dump").splitlines() for n in underlay.topology.minions}
    # wg(8): a line of five fields is an interface, one of nine a peer.
    owners = {fields[2]: node for node, dump in dumps.items() for fields in map(str.split, dump) if len(fields) == 5}
    peers = {}
    for node in mesh.members:
        dump = dumps[node]
        for interface, key, _, _, _, handshake, rx, tx, _ in (
            line.split("\t") for line in dump if line.count("\t") == 8
        ):
            entry = Entry(node, interface, owners.get(key, key))
            peers[entry] = Session(key, int(handshake), int(rx), int(tx))
    held = {(entry.node, entry.interface) for entry in peers}
    numbers = {(n, link): number for n, links in mesh.links().items() for link, number in links.items()}
    return Sessions(peers, {place: number for place, number in numbers.items() if place in held})


Concerned = Collection[str | frozenset[str]]
"""Nodes, and links as the pair of their ends."""


def disturbed(before: Sessions, after: Sessions, concerned: Concerned) -> list[str]:
    """Return a line for each session and interface that ended or was recreated, except those of *concerned* nodes."""
    lines = [
        f"{node}: {interface} was recreated"
        for (node, interface), number in sorted(before.interfaces.items())
        if node not in concerned and after.interfaces.get((node, interface), number) != number
    ]
    for entry, old in sorted(before.peers.items()):
        if {entry.node, entry.peer, frozenset((entry.node, entry.peer))} & set(concerned):
            continue
        if what := _what_happened(old, after.peers.get(entry)):
            lines.append(f"{entry.node}: {entry.peer} on {entry.interface}: {what}")
    return lines


def _what_happened(old: Session, new: Session | None) -> str | None:
    if new is None:
        return "gone"
    if new.key != old.key:
        return "another key"
    if new.rx < old.rx or new.tx < old.tx or new.handshake < old.handshake:
        return "started again"
    if old.handshake and SLACK < new.handshake - old.handshake < SOONEST:
        return f"a new session {new.handshake - old.handshake} s after the last"
    return None
