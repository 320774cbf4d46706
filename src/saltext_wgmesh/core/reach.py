"""Which pairs of leaves are linked directly, and why or why not.

A pair is direct if the topology wants it and at least one side can open the connection. ``direct_pairs`` finds them
all without looking at each pair; ``verdict`` judges one pair in a sentence. A test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from saltext_wgmesh.core.types import Endpoint, Member, MeshPolicy, Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether two leaves are linked directly, and why, as the end of a sentence."""

    direct: bool
    reason: str


def direct_pairs(mesh: MeshPolicy, leaves: Iterable[Member]) -> list[tuple[str, str]]:
    """All directly linked pairs of *leaves*, each sorted, in order.

    Only pairs with a side that could be opened are looked at: ten thousand leaves behind NAT cost nothing.
    """
    members = {m.node: m for m in sorted(leaves, key=lambda m: m.node)}
    found: set[tuple[str, str]] = set()
    for group in _wanted_groups(mesh, members.values()):
        passive = [m for m in group if m.endpoint is None and (m.nat or not m.underlay)]
        active = [m for m in group if m.endpoint is not None or not (m.nat or not m.underlay)]
        pairs = (*combinations(active, 2), *((a, p) for a in active for p in passive))
        found.update(_pair(a.node, b.node) for a, b in pairs if _opens(mesh, a, b))
    for left, right in mesh.links:
        if left in members and right in members and _opens(mesh, members[left], members[right]):
            found.add(_pair(left, right))
    return sorted(found)


def endpoint(mesh: MeshPolicy, opener: Member, target: Member) -> Endpoint | None:
    """Where *opener* reaches the access interface of *target*; None if it can't open to it.

    The policy's endpoint counts first. Without one, a target that is not behind NAT is reached at an underlay
    address (its first in a family that the opener has too) by those who share the underlay with it: the same site, or
    in topology full no site either, or a pair in ``links``.
    """
    if target.endpoint is not None:
        return target.endpoint
    if target.nat or not _shares_underlay(mesh, opener, target):
        return None
    families = {":" in a for a in opener.underlay}
    for address in target.underlay:
        if not families or (":" in address) in families:
            return Endpoint(host=address, port=target.listen_port)
    return None


def verdict(mesh: MeshPolicy, a: Member, b: Member) -> Verdict:
    """Whether the leaves *a* and *b* are linked directly, and why."""
    wanted, reason = _wish(mesh, a, b)
    if not wanted:
        return Verdict(direct=False, reason=reason)
    if _opens(mesh, a, b):
        return Verdict(direct=True, reason=reason)
    return Verdict(direct=False, reason=f"{reason}, but neither side can open: {_obstacles(mesh, a, b)}")


def _wanted_groups(mesh: MeshPolicy, leaves: Iterable[Member]) -> list[Sequence[Member]]:
    """Groups within which the topology wants all pairs to be direct; ``links`` come on top."""
    if mesh.topology is Topology.HUB:
        return []
    if mesh.topology is Topology.FULL:
        return [list(leaves)]
    by_site: dict[str, list[Member]] = {}
    public = []
    for member in leaves:
        if _site_wants_direct(mesh, member.site):
            by_site.setdefault(str(member.site), []).append(member)
        if member.endpoint is not None:
            public.append(member)
    return [*by_site.values(), public]


def _wish(mesh: MeshPolicy, a: Member, b: Member) -> tuple[bool, str]:
    """Whether the policy wants the pair to be direct, and by which of its words."""
    if _pair(a.node, b.node) in mesh.links:
        return True, "the policy's links name this pair"
    if mesh.topology is Topology.FULL:
        return True, "topology full links every pair"
    if mesh.topology is Topology.HUB:
        return False, "topology hub links leaves to relays alone"
    if a.endpoint is not None and b.endpoint is not None:
        return True, "both have an endpoint"
    if a.site is not None and a.site == b.site:
        if _site_wants_direct(mesh, a.site):
            return True, f"both are at site {a.site}"
        return False, f"site {a.site} is set to direct: false"
    return False, f"topology partial links across sites only nodes that both have an endpoint: {_lacking(a, b)} none"


def _lacking(a: Member, b: Member) -> str:
    names = sorted(m.node for m in (a, b) if m.endpoint is None)
    return f"{names[0]} has" if len(names) == 1 else f"{names[0]} and {names[1]} have"


def _obstacles(mesh: MeshPolicy, a: Member, b: Member) -> str:
    """Why neither can open to the other, for both sides in order of name."""
    first, second = sorted((a, b), key=lambda m: m.node)
    return f"{_obstacle(mesh, second, first)}, {_obstacle(mesh, first, second)}"


def _obstacle(mesh: MeshPolicy, opener: Member, target: Member) -> str:
    if target.nat:
        return f"{target.node} is behind NAT and has no endpoint"
    if not _shares_underlay(mesh, opener, target):
        return f"{target.node} has no endpoint and shares no underlay with {opener.node}"
    if not target.underlay:
        return f"{target.node} has no endpoint and reports no underlay address"
    return f"{opener.node} has no address family in common with {target.node}"


def _opens(mesh: MeshPolicy, a: Member, b: Member) -> bool:
    return endpoint(mesh, a, b) is not None or endpoint(mesh, b, a) is not None


def _shares_underlay(mesh: MeshPolicy, a: Member, b: Member) -> bool:
    """Nodes of one site; nodes of no site, where every pair is to be direct; and pairs that the policy vouches for."""
    same_site = a.site == b.site and (a.site is not None or mesh.topology is Topology.FULL)
    return same_site or _pair(a.node, b.node) in mesh.links


def _site_wants_direct(mesh: MeshPolicy, site: str | None) -> bool:
    return site is not None and (site not in mesh.sites or mesh.sites[site].direct)


def _pair(a: str, b: str) -> tuple[str, str]:
    return (a, b) if a < b else (b, a)
