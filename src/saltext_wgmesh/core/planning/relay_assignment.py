"""The relays of each leaf, first choice first: balanced, and unchanged wherever that is possible.

The assignment is rendezvous hashing (HRW) with memory. A leaf's relays come from the nearest tier that has any. The
tiers are:

1. the relays that the leaf's site names and that are at the site;
2. all relays that the site names;
3. all relays of the mesh.

Leaves with the same tiers form a group, which is balanced by itself:

- In a new group no relay is the first choice of more than ceil(leaves / relays) leaves. With as many leaves as relays,
  each relay is the first choice of one. A leaf that joins never lifts a relay above that number.
- A relay that leaves moves only the leaves that had it. The other relay of such a leaf becomes its first.
- A relay that joins is assigned to floor(leaves / relays) leaves of the fullest relays; the other leaves stay.
- A leaf that leaves moves no other leaf, unless it was the last one with some relay as its first.
- A leaf gets a relay that it must avoid only if it has fewer than two others, and never as its first if it has another.
  The leaves that avoid the same relays are balanced among themselves.
- A leaf whose own link to a relay is down has another one for that time. It counts as a leaf of its relay all the same.

The second and third rule hold for groups with at least as many leaves as relays. In smaller groups one more leaf may
move. After losses a group may stay uneven: leaves that work are not moved to balance it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from types import MappingProxyType

from saltext_wgmesh.core.model.plan import Allocations
from saltext_wgmesh.core.model.policy import MeshPolicy, Topology

RelayOrder = tuple[str, ...]
"""The relays of a leaf, first choice first."""
Pool = tuple[str, ...]
"""Relays to choose from, sorted."""
RelayTiers = tuple[Pool, ...]
"""Pools, nearest first. None is empty, each contains the one before, and the last has all relays."""
Avoid = Mapping[str, frozenset[str]]
"""Leaf → the relays that it should not use at present."""


def assign_relays(
    mesh: MeshPolicy,
    leaves: Mapping[str, str | None],
    relays: Sequence[str],
    allocations: Allocations,
    avoid: Avoid = MappingProxyType({}),
    unstable: frozenset[str] = frozenset(),
) -> dict[str, RelayOrder]:
    """Return leaf → its relays in order.

    *leaves* is node → site, *relays* the relays with facts. A leaf without an entry in *avoid* may use all relays. The
    *unstable* relays had trouble recently: no leaf is moved to them for balance.

    Each leaf gets two relays if there are two, each from the nearest tier that has one. In topology full it gets all. A
    pair of a leaf and a relay in ``links`` appends that relay. The order of the input does not matter.
    """
    all_relays = tuple(sorted(relays))
    if not all_relays:
        return dict.fromkeys(sorted(leaves), ())
    kinds = {leaf: (site, avoid.get(leaf, frozenset())) for leaf, site in leaves.items()}
    # Most leaves are of a few kinds, so tiers are computed once for each kind and not for each leaf.
    tiers_of = {kind: _relay_tiers(mesh, *kind, all_relays) for kind in set(kinds.values())}
    groups: dict[RelayTiers, list[str]] = {}
    # In order of names, so that the same nodes get the same relays, whatever order the mine has.
    for leaf in sorted(leaves):
        groups.setdefault(tiers_of[kinds[leaf]], []).append(leaf)
    chosen: dict[str, RelayOrder] = {}
    for tiers, members in sorted(groups.items()):
        firsts = _firsts(members, tiers[0], allocations, unstable)
        for leaf, pair in _assign_second(firsts, tiers, allocations).items():
            chosen[leaf] = pair if mesh.topology is not Topology.FULL else _all(leaf, pair, tiers, allocations)
    # Added last: a link that the operator named changes no assignment of relays.
    for leaf, relay in _linked(mesh, leaves, all_relays):
        if relay not in chosen[leaf]:
            chosen[leaf] = (*chosen[leaf], relay)
    return {leaf: chosen[leaf] for leaf in sorted(chosen)}


def without_links(
    mesh: MeshPolicy,
    leaves: Mapping[str, str | None],
    relays: Sequence[str],
    allocated: Mapping[str, RelayOrder],
    avoid: Avoid,
    cut: Sequence[Avoid],
) -> dict[str, RelayOrder]:
    """Return *allocated* (leaf → relays), with other relays in place of those to which a leaf has no usable link.

    Each of *cut* is leaf → relays to do without, the worst ones first: a leaf does without those of the next one only
    if some relay is left to it. Each leaf is looked at alone and nothing of it is remembered. A link that one of its
    ends calls down therefore moves no other leaf. The leaf returns when its link is good again.
    """
    all_relays = tuple(sorted(relays))
    concerned = sorted({leaf for links in cut for leaf in links if allocated.get(leaf)})
    unusable = {leaf: frozenset(all_relays) - _usable(leaf, all_relays, avoid, cut) for leaf in concerned}
    kinds = {leaf: (leaves[leaf], unusable[leaf]) for leaf in concerned}
    tiers_of = {kind: _relay_tiers(mesh, *kind, all_relays) for kind in set(kinds.values())}
    found = dict(allocated)
    for leaf in concerned:
        tiers, had = tiers_of[kinds[leaf]], allocated[leaf]
        order = {relay: i for i, relay in enumerate(dict.fromkeys((*had, *_ranked(leaf, tiers[-1]))))}
        best = sorted(tiers[-1], key=lambda r: (sum(r not in tier for tier in tiers), order[r]))
        found[leaf] = tuple(best if mesh.topology is Topology.FULL else best[:2])
    for leaf, relay in _linked(mesh, {leaf: leaves[leaf] for leaf in concerned}, all_relays):
        if relay not in found[leaf]:
            found[leaf] = (*found[leaf], relay)
    return found


def _usable(leaf: str, all_relays: Pool, avoid: Avoid, cut: Sequence[Avoid]) -> frozenset[str]:
    usable = frozenset(all_relays) - avoid.get(leaf, frozenset())
    for links in cut:
        usable = usable - links.get(leaf, frozenset()) or usable
    return usable


def nearest_pools(mesh: MeshPolicy, leaves: Mapping[str, str | None], relays: Sequence[str]) -> dict[str, Pool]:
    """Return leaf → the relays of its nearest tier while all relays are usable; *leaves* is node → site."""
    all_relays = tuple(sorted(relays))
    if not all_relays:
        return {}
    by_site = {site: _relay_tiers(mesh, site, frozenset(), all_relays)[0] for site in set(leaves.values())}
    return {leaf: by_site[site] for leaf, site in leaves.items()}


def _relay_tiers(mesh: MeshPolicy, site: str | None, avoid: frozenset[str], all_relays: Pool) -> RelayTiers:
    """Return the tiers for the leaves of *site* that *avoid* some relays; these relays are only in the last tier."""
    named = mesh.sites[site].relays if site is not None and site in mesh.sites else ()
    site_of = {rule.pattern: rule.site for rule in mesh.nodes}
    usable = tuple(r for r in all_relays if r not in avoid)
    own = tuple(r for r in usable if r in named)
    local = tuple(r for r in own if site_of.get(r) == site)
    last = () if usable == all_relays else all_relays
    return tuple(tier for tier in (local, own, usable, last) if tier)


def _linked(mesh: MeshPolicy, leaves: Mapping[str, str | None], all_relays: Pool) -> list[tuple[str, str]]:
    """Return the pairs of ``links`` that are one leaf and one relay, as (leaf, relay), sorted."""
    pairs = {(a, b) for left, right in mesh.links for a, b in ((left, right), (right, left))}
    return sorted((a, b) for a, b in pairs if a in leaves and b in all_relays)


def _firsts(leaves: Sequence[str], pool: Pool, allocations: Allocations, unstable: frozenset[str]) -> dict[str, str]:
    """Return leaf → its first relay: its previous one, else by rendezvous hashing among the relays that have room."""
    previous = {leaf: next((r for r in allocations.relays.get(leaf, ()) if r in pool), None) for leaf in leaves}
    firsts = {leaf: relay for leaf, relay in previous.items() if relay is not None}
    load = Counter(dict.fromkeys(pool, 0))
    load.update(firsts.values())
    # Rounded up, so that the shares together have room for all leaves.
    room = -(-len(leaves) // len(pool))
    for leaf in leaves:
        if leaf not in firsts:
            firsts[leaf] = next(r for r in _ranked(leaf, pool) if load[r] < room)
            load[firsts[leaf]] += 1
    # A relay without leaves is new or has returned.
    for relay in pool:
        if load[relay] == 0 and relay not in unstable:
            _rebalance_to(relay, len(leaves) // len(pool), firsts, load)
    return firsts


def _rebalance_to(relay: str, share: int, firsts: dict[str, str], load: Counter[str]) -> None:
    """Move *share* leaves to *relay*, which has none, each from the relay that has most leaves at that moment."""
    candidates: dict[str, list[str]] = {}
    for leaf, first in firsts.items():
        candidates.setdefault(first, []).append(leaf)
    # The leaves that hashing would give to *relay* anyway are moved first, so they are sorted to the end.
    for leaves in candidates.values():
        leaves.sort(key=lambda leaf: (_score(leaf, relay), leaf))
    for _ in range(share):
        fullest = max(load, key=lambda r: (load[r], r))
        firsts[candidates[fullest].pop()] = relay
        load[fullest] -= 1
        load[relay] += 1


def _assign_second(firsts: Mapping[str, str], tiers: RelayTiers, allocations: Allocations) -> dict[str, RelayOrder]:
    """Return leaf → its first and second relay.

    The leaves of one first relay are spread evenly over the second relays, so that the loss of the first spreads them.
    """
    by_first: dict[str, list[str]] = {}
    for leaf in sorted(firsts):
        by_first.setdefault(firsts[leaf], []).append(leaf)
    found: dict[str, RelayOrder] = {}
    for first, leaves in by_first.items():
        rest = next((c for c in (tuple(r for r in tier if r != first) for tier in tiers) if c), ())
        if not rest:
            found.update(dict.fromkeys(leaves, (first,)))
            continue
        previous = {leaf: next((r for r in allocations.relays.get(leaf, ()) if r in rest), None) for leaf in leaves}
        load = Counter(r for r in previous.values() if r is not None)
        # Rounded up, so the shares together have room for all leaves, and a relay below its share is always found.
        room = -(-len(leaves) // len(rest))
        for leaf in leaves:
            second = previous[leaf]
            if second is None:
                second = next(r for r in _ranked(leaf, rest) if load[r] < room)
                load[second] += 1
            found[leaf] = (first, second)
    return found


def _all(leaf: str, pair: RelayOrder, tiers: RelayTiers, allocations: Allocations) -> RelayOrder:
    """Return all relays: the assigned *pair*, then the rest tier by tier.

    Within a tier the previous relays come first, in their order, and then the others by rendezvous hashing.
    """
    previous = allocations.relays.get(leaf, ())
    order = {relay: i for i, relay in enumerate((*previous, *_ranked(leaf, tiers[-1]))[::-1])}
    rest = [r for r in tiers[-1] if r not in pair]
    rest.sort(key=lambda r: (sum(r not in tier for tier in tiers), -order[r]))
    return (*pair, *rest)


def _ranked(leaf: str, relays: Sequence[str]) -> list[str]:
    """Return the relays by rendezvous hashing (Thaler and Ravishankar 1996), the highest score first."""
    return sorted(relays, key=lambda relay: (-_score(leaf, relay), relay))


def _score(leaf: str, relay: str) -> int:
    return int.from_bytes(blake2b(f"{leaf}\0{relay}".encode(), digest_size=8).digest(), "big")
