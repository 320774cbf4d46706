"""The WireGuard sessions of a mesh, and which of them did not live through a change as if nothing had been."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from .mesh import Mesh

SOONEST = 100
"""Seconds after which a session is renewed in the ordinary course of things, less some slack: 120 by the whitepaper."""
SLACK = 10
"""Seconds in which both ends may renew one session, each by itself."""


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One peer on one interface of one node."""

    node: str
    interface: str
    peer: str
    """The node that it is, or its public key where no machine has that."""


@dataclass(frozen=True, slots=True)
class Session:
    """What WireGuard tells of a peer. No key but the public one is ever read into it."""

    key: str
    handshake: int
    """Seconds since the epoch; 0 for none."""
    rx: int
    tx: int


@dataclass(frozen=True, slots=True)
class Sessions:
    """All sessions of a mesh's members at one time, and the numbers that the kernel has for their interfaces."""

    peers: Mapping[Entry, Session]
    interfaces: Mapping[tuple[str, str], int]


def sessions(mesh: Mesh) -> Sessions:
    """As they are now."""
    underlay = mesh.lab.underlay
    # Who is about to leave may be no member here; its name is wanted all the same.
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
    """A line for each session and interface that is gone or began anew; those from, to and between *concerned* may."""
    lines = [
        f"{node}: {interface} was made anew"
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
        return "began anew"
    if old.handshake and SLACK < new.handshake - old.handshake < SOONEST:
        return f"a new session {new.handshake - old.handshake} s after the last"
    return None
