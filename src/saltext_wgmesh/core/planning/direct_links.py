"""Pairs of leaves that are linked directly, and why or why not.

A pair is linked directly if the policy asks for it and at least one side can open the connection. ``direct_pairs``
finds all such pairs without a look at every pair. ``direct_link_verdict`` explains one pair. A test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from saltext_wgmesh.core.errors import Problem
from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.model.pairs import NodePair, node_pair
from saltext_wgmesh.core.model.plan import Member
from saltext_wgmesh.core.model.policy import Endpoint, MeshPolicy, Topology
from saltext_wgmesh.core.planning import underlay_choice
from saltext_wgmesh.core.planning.openers import can_open

MAX_ENDPOINTS = 4
"""Places at which a neighbour is looked for: more would keep a link that is down from the right one for minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether two leaves are linked directly, and the reason in words."""

    direct: bool
    reason: str


def direct_pairs(mesh: MeshPolicy, leaves: Iterable[Member]) -> list[NodePair]:
    """Return all directly linked pairs of *leaves*, sorted.

    Pairs of two sides that can't be opened are skipped, so that ten thousand leaves behind NAT cost no time.
    """
    members = {m.node: m for m in sorted(leaves, key=lambda m: m.node)}
    found: set[NodePair] = set()
    for group in _direct_groups(mesh, members.values()):
        passive = [m for m in group if m.endpoint is None and (m.nat or not m.underlay)]
        active = [m for m in group if m.endpoint is not None or not (m.nat or not m.underlay)]
        # Two passive nodes can't open a link. Without their pairs, a fleet behind NAT costs no time by its square.
        pairs = (*combinations(active, 2), *((a, p) for a in active for p in passive))
        found.update(node_pair(a.node, b.node) for a, b in pairs if _opens(mesh, a, b))
    for left, right in mesh.links:
        if left in members and right in members and _opens(mesh, members[left], members[right]):
            found.add(node_pair(left, right))
    return sorted(found)


def endpoints_for(mesh: MeshPolicy, opener: Member, target: Member) -> tuple[Endpoint, ...]:
    """Return where *opener* may reach the access interface of *target*, the best first, MAX_ENDPOINTS at most.

    The policy's endpoint is the only one, if *opener* has its family. Without one, these are the underlay addresses of
    *target* that mean it to *opener* (``underlay_choice.usable_addresses``). For this, *target* must not be behind NAT,
    and both must share an underlay (``_shares_underlay``).
    """
    if target.endpoint and can_open(opener.families, target.endpoint):
        return (target.endpoint,)
    if target.nat or not _shares_underlay(mesh, opener, target):
        return ()
    usable = underlay_choice.usable_addresses(opener, target)[:MAX_ENDPOINTS]
    return tuple(Endpoint(host=address, port=target.listen_port) for address in usable)


def direct_link_verdict(mesh: MeshPolicy, a: Member, b: Member) -> Verdict:
    """Return whether the leaves *a* and *b* are linked directly, and why."""
    asked_for, reason = _policy_verdict(mesh, a, b)
    if not asked_for:
        return Verdict(direct=False, reason=reason)
    if _opens(mesh, a, b):
        return Verdict(direct=True, reason=reason)
    return Verdict(direct=False, reason=f"{reason}, but neither side can open: {_why_not_linked(mesh, a, b)}")


def _direct_groups(mesh: MeshPolicy, leaves: Iterable[Member]) -> list[Sequence[Member]]:
    """Return the groups of leaves in which the topology links all pairs directly; ``links`` are not included."""
    if mesh.topology is Topology.HUB:
        return []
    if mesh.topology is Topology.FULL:
        return [list(leaves)]
    by_site: dict[str, list[Member]] = {}
    public = []
    for member in leaves:
        if _is_direct_site(mesh, member.site):
            by_site.setdefault(str(member.site), []).append(member)
        if member.endpoint is not None:
            public.append(member)
    return [*by_site.values(), public]


def _policy_verdict(mesh: MeshPolicy, a: Member, b: Member) -> tuple[bool, str]:
    """Return whether the policy asks for a direct link of the pair, and by which setting."""
    if node_pair(a.node, b.node) in mesh.links:
        return True, "the policy's links name this pair"
    if mesh.topology is Topology.FULL:
        return True, "topology full links every pair"
    if mesh.topology is Topology.HUB:
        return False, "topology hub links leaves to relays alone"
    if a.endpoint is not None and b.endpoint is not None:
        return True, "both have an endpoint"
    if a.site is not None and a.site == b.site:
        if _is_direct_site(mesh, a.site):
            return True, f"both are at site {a.site}"
        return False, f"site {a.site} is set to direct: false"
    return (
        False,
        f"topology partial links across sites only nodes that both have an endpoint: {_without_endpoint(a, b)} none",
    )


def _without_endpoint(a: Member, b: Member) -> str:
    names = sorted(m.node for m in (a, b) if m.endpoint is None)
    return f"{names[0]} has" if len(names) == 1 else f"{names[0]} and {names[1]} have"


def _why_not_linked(mesh: MeshPolicy, a: Member, b: Member) -> str:
    """Return why neither side can open a connection, for both sides in order of name."""
    first, second = sorted((a, b), key=lambda m: m.node)
    return f"{_why_not_openable(mesh, second, first)}, {_why_not_openable(mesh, first, second)}"


def _why_not_openable(mesh: MeshPolicy, opener: Member, target: Member) -> str:
    if target.nat:
        return f"{target.node} is behind NAT and has no endpoint"
    if not _shares_underlay(mesh, opener, target):
        return f"{target.node} has no endpoint and shares no underlay with {opener.node}"
    if not target.underlay:
        return f"{target.node} has no endpoint and reports no underlay address"
    if not opener.families & {address_family(a) for a in target.underlay}:
        return f"{opener.node} has no address family in common with {target.node}"
    return f"the addresses of {target.node} are those of {opener.node} too, or in networks within it"


def _opens(mesh: MeshPolicy, a: Member, b: Member) -> bool:
    return bool(endpoints_for(mesh, a, b) or endpoints_for(mesh, b, a))


def _shares_underlay(mesh: MeshPolicy, a: Member, b: Member) -> bool:
    """Whether the policy implies that both nodes reach each other without an endpoint.

    This holds for nodes of one site and for pairs in ``links``. In topology full it holds for nodes without a site too.
    """
    same_site = a.site == b.site and (a.site is not None or mesh.topology is Topology.FULL)
    return same_site or node_pair(a.node, b.node) in mesh.links


def _is_direct_site(mesh: MeshPolicy, site: str | None) -> bool:
    return site is not None and (site not in mesh.sites or mesh.sites[site].direct)


def unreachable_pairs(mesh: MeshPolicy, members: Mapping[str, Member], direct: Iterable[NodePair]) -> list[Problem]:
    """Return, for a mesh without relays, a problem for each node that has no link to some other node."""
    linked: dict[str, set[str]] = {node: {node} for node in members}
    for a, b in direct:
        linked[a].add(b)
        linked[b].add(a)
    problems = []
    # One problem a node, with its first such pair: a mesh of n nodes may have n² pairs.
    for node, reached in linked.items():
        missing = len(members) - len(reached)
        if missing:
            other = next(m for m in members if m not in reached)
            why = direct_link_verdict(mesh, members[node], members[other]).reason
            more = f", nor to {missing - 1} more" if missing > 1 else ""
            message = f"it has no link to {other} ({why}){more}, and the mesh has no relay"
            remedy = "add a relay, or give one side an endpoint and add the pair to links"
            problems.append(Problem(path=f"node {node}", message=message, remedy=remedy))
    return problems
