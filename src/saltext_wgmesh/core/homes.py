"""Each leaf's relays, first choice first: balanced, and kept as they were wherever that is possible.

A leaf's relays come from the nearest circle that has any: those of its site that stand at the site, all that the
site names, all of the mesh. Leaves with the same circles are balanced among themselves. What holds:

- A new group is balanced: no relay is the first choice of more than ceil(leaves / relays), and each of at least
  one leaf if there are as many leaves as relays. A leaf that joins never lifts a relay above that number.
- A relay that goes moves only the leaves that had it, and the other relay of such a leaf becomes its first.
- A relay that comes is taken by floor(leaves / relays) leaves, those of the fullest relays; the others stay.
  (The last two hold for groups with at least as many leaves as relays; in smaller ones one leaf more may move.)
- A leaf that goes moves nobody, unless it was the last that had some relay as its first.
- A relay that a leaf must avoid is its choice only where it has fewer than two others, and never the first if there
  is one. The leaves that avoid the same relays are balanced among themselves.

After losses a group may thus stay uneven: the price of not moving leaves that have no need to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from types import MappingProxyType

from saltext_wgmesh.core.types import MeshPolicy, Register, Topology

Pool = tuple[str, ...]
Circles = tuple[Pool, ...]
"""Relays from which to choose, nearest first; none is empty, each holds the one before, the last has all."""
Avoid = Mapping[str, frozenset[str]]
"""Leaf → the relays that are of no use to it now."""


def assign(
    mesh: MeshPolicy,
    leaves: Mapping[str, str | None],
    relays: Sequence[str],
    register: Register,
    avoid: Avoid = MappingProxyType({}),
    restless: frozenset[str] = frozenset(),
) -> dict[str, tuple[str, ...]]:
    """Leaf → its relays in order; *leaves* is node → site, *relays* those that are there; *avoid* may lack leaves.
    To the relays *restless*, which had trouble lately, nobody is moved to even out the load.

    Two relays where there are two, each from the nearest circle that has one. Topology full: all. A pair of a
    leaf and a relay in ``links`` appends that relay. The result does not depend on the order of the input.
    """
    everyone = tuple(sorted(relays))
    if not everyone:
        return dict.fromkeys(sorted(leaves), ())
    kinds = {leaf: (site, avoid.get(leaf, frozenset())) for leaf, site in leaves.items()}
    circles = {kind: _circles(mesh, *kind, everyone) for kind in set(kinds.values())}
    groups: dict[Circles, list[str]] = {}
    for leaf in sorted(leaves):
        groups.setdefault(circles[kinds[leaf]], []).append(leaf)
    chosen: dict[str, tuple[str, ...]] = {}
    for around, members in sorted(groups.items()):
        firsts = _firsts(members, around[0], register, restless)
        for leaf, pair in _with_seconds(firsts, around, register).items():
            chosen[leaf] = pair if mesh.topology is not Topology.FULL else _all(leaf, pair, around, register)
    for leaf, relay in _linked(mesh, leaves, everyone):
        if relay not in chosen[leaf]:
            chosen[leaf] = (*chosen[leaf], relay)
    return {leaf: chosen[leaf] for leaf in sorted(chosen)}


def _circles(mesh: MeshPolicy, site: str | None, avoid: frozenset[str], everyone: Pool) -> Circles:
    """The circles for the leaves of *site* that are to *avoid* some relays: these stand in the last alone."""
    named = mesh.sites[site].relays if site is not None and site in mesh.sites else ()
    stands = {rule.pattern: rule.site for rule in mesh.nodes}
    usable = tuple(r for r in everyone if r not in avoid)
    own = tuple(r for r in usable if r in named)
    local = tuple(r for r in own if stands.get(r) == site)
    last = () if usable == everyone else everyone
    return tuple(circle for circle in (local, own, usable, last) if circle)


def _linked(mesh: MeshPolicy, leaves: Mapping[str, str | None], everyone: Pool) -> list[tuple[str, str]]:
    """The pairs of ``links`` that are one leaf and one relay, as (leaf, relay), sorted."""
    pairs = {(a, b) for left, right in mesh.links for a, b in ((left, right), (right, left))}
    return sorted((a, b) for a, b in pairs if a in leaves and b in everyone)


def _firsts(leaves: Sequence[str], pool: Pool, register: Register, restless: frozenset[str]) -> dict[str, str]:
    """Leaf → its first relay: what it had, else by rendezvous among the relays that have room."""
    kept = {leaf: next((r for r in register.homes.get(leaf, ()) if r in pool), None) for leaf in leaves}
    firsts = {leaf: relay for leaf, relay in kept.items() if relay is not None}
    load = Counter(dict.fromkeys(pool, 0))
    load.update(firsts.values())
    room = -(-len(leaves) // len(pool))
    for leaf in leaves:
        if leaf not in firsts:
            firsts[leaf] = next(r for r in _ranked(leaf, pool) if load[r] < room)
            load[firsts[leaf]] += 1
    for relay in pool:
        if load[relay] == 0 and relay not in restless:
            _fill(relay, len(leaves) // len(pool), firsts, load)
    return firsts


def _fill(relay: str, share: int, firsts: dict[str, str], load: Counter[str]) -> None:
    """Afterwards *relay*, which was nobody's first, has *share* leaves, each from what was then the fullest."""
    candidates: dict[str, list[str]] = {}
    for leaf, first in firsts.items():
        candidates.setdefault(first, []).append(leaf)
    for leaves in candidates.values():
        leaves.sort(key=lambda leaf: (_score(leaf, relay), leaf))
    for _ in range(share):
        fullest = max(load, key=lambda r: (load[r], r))
        firsts[candidates[fullest].pop()] = relay
        load[fullest] -= 1
        load[relay] += 1


def _with_seconds(firsts: Mapping[str, str], around: Circles, register: Register) -> dict[str, tuple[str, ...]]:
    """Leaf → its first and second relay.

    The leaves of one first relay are spread evenly over the seconds, so that its loss spreads them evenly too.
    """
    by_first: dict[str, list[str]] = {}
    for leaf in sorted(firsts):
        by_first.setdefault(firsts[leaf], []).append(leaf)
    found: dict[str, tuple[str, ...]] = {}
    for first, leaves in by_first.items():
        rest = next((c for c in (tuple(r for r in circle if r != first) for circle in around) if c), ())
        if not rest:
            found.update(dict.fromkeys(leaves, (first,)))
            continue
        kept = {leaf: next((r for r in register.homes.get(leaf, ()) if r in rest), None) for leaf in leaves}
        load = Counter(r for r in kept.values() if r is not None)
        room = -(-len(leaves) // len(rest))
        for leaf in leaves:
            second = kept[leaf]
            if second is None:
                second = next(r for r in _ranked(leaf, rest) if load[r] < room)
                load[second] += 1
            found[leaf] = (first, second)
    return found


def _all(leaf: str, pair: tuple[str, ...], around: Circles, register: Register) -> tuple[str, ...]:
    """All relays: the chosen, then circle by circle; in each as before, then by rendezvous."""
    had = register.homes.get(leaf, ())
    order = {relay: i for i, relay in enumerate((*had, *_ranked(leaf, around[-1]))[::-1])}
    rest = [r for r in around[-1] if r not in pair]
    rest.sort(key=lambda r: (sum(r not in circle for circle in around), -order[r]))
    return (*pair, *rest)


def _ranked(leaf: str, relays: Sequence[str]) -> list[str]:
    """The relays by rendezvous hashing (Thaler and Ravishankar 1996): the highest score first."""
    return sorted(relays, key=lambda relay: (-_score(leaf, relay), relay))


def _score(leaf: str, relay: str) -> int:
    return int.from_bytes(blake2b(f"{leaf}\0{relay}".encode(), digest_size=8).digest(), "big")
