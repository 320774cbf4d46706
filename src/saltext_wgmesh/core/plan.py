"""Policy, facts and register → the plan of one mesh. Read ``make``: it is the algorithm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from saltext_wgmesh.core import addresses, homes, moves, names, reach, rollout, rules, views
from saltext_wgmesh.core.errors import PlanError, Problem
from saltext_wgmesh.core.health import Health
from saltext_wgmesh.core.prune import Outline
from saltext_wgmesh.core.rollout import NOTHING, Kept
from saltext_wgmesh.core.types import Facts, Kind, Link, Member, MeshPolicy, NodeRule, Place, Plan, Register, Role

CALM = Health()


def make(
    mesh: MeshPolicy,
    facts: Mapping[str, Facts],
    register: Register,
    health: Health = CALM,
    *,
    drained: frozenset[str] = frozenset(),
    kept: Kept = NOTHING,
) -> Plan:
    """The plan for all nodes with facts that a rule of the mesh matches; PlanError with all that prevents one.

    What is down, or *drained*, stays in the plan, so that its return is noticed; nobody depends on it who need not.
    What is *kept* of the plan before is there, and used by nobody whose links of this plan are up. A node that no rule
    matches is not mentioned; one that can't be placed yet is in ``left_out``. The order of *facts* does not matter, and
    neither do nodes that come or go to the addresses and numbers of others.
    """
    matched = {
        node: replace(rule, role=Role.LEAF) if node in kept.crossing else rule
        for node, rule in rules.rules_for(mesh, facts).items()
    }
    left_out = _not_ready(mesh, matched, facts)
    nodes = {node: rule for node, rule in matched.items() if node not in left_out}
    relays = _relays(mesh, nodes)
    drained |= kept.fresh

    assigned, problems = addresses.assign(mesh, nodes, register)
    numbers = _numbers([*relays, *sorted(kept.crossing.keys() & nodes.keys())], register)
    problems += _unusable_numbers(mesh, relays, numbers) + _homeless_subnets(mesh)
    leaves = {node: rule.site for node, rule in nodes.items() if rule.role is Role.LEAF}
    restless = health.resting.union(drained, *health.cut, *health.links)
    chosen = homes.assign(mesh, leaves, relays, register, _avoid(leaves, register, health, drained), restless)
    used = {leaf: rollout.in_order(chosen[leaf], kept.homes.get(leaf, ())) for leaf in leaves}
    used |= {leaf: across.homes for leaf, across in kept.crossing.items() if leaf in leaves}
    parts = _Parts(
        mesh=mesh,
        nodes=nodes,
        facts=facts,
        addresses=assigned,
        homes=moves.apart(used, kept.moves, health),
        kept=kept,
        last=health.down | health.resting | drained,
    )
    members = _members(parts)
    # A link that is kept is opened like one that the operator asks for, if it still can be.
    linked = replace(mesh, links=tuple(sorted({*mesh.links, *kept.pairs})))
    direct = reach.direct_pairs(linked, (members[leaf] for leaf in leaves))
    direct = [pair for pair in direct if pair in kept.pairs or not kept.crossing.keys() & set(pair)]
    if not relays:
        problems += _cut_off(mesh, members, direct)
    if problems:
        raise PlanError(problems)

    return Plan(
        mesh=mesh.name,
        networks=tuple(str(n) for n in mesh.networks),
        members=members,
        links=_links(members, relays, direct),
        views=views.make(
            linked,
            members,
            direct,
            numbers,
            cut=health.cut | kept.pairs | moves.unused(members, direct, kept.moves),
            drained=drained,
            under_way=kept.moves,
        ),
        left_out=left_out,
        register=Register(
            addresses=addresses.remember(register, assigned),
            numbers=numbers,
            homes=dict(sorted({**register.homes, **chosen}.items())),
        ),
    )


def outline(mesh: MeshPolicy, facts: Mapping[str, Facts]) -> Outline:
    """The members and direct links of every plan that is made from these, whatever is down or was before."""
    matched = rules.rules_for(mesh, facts)
    unready = _not_ready(mesh, matched, facts)
    nodes = {node: rule for node, rule in matched.items() if node not in unready}
    leaves = {node for node, rule in nodes.items() if rule.role is Role.LEAF}
    bare = dict.fromkeys(nodes, ())
    members = _members(
        _Parts(mesh=mesh, nodes=nodes, facts=facts, addresses=bare, homes={}, kept=NOTHING, last=frozenset())
    )
    pairs = reach.direct_pairs(mesh, (members[leaf] for leaf in leaves))
    return Outline(leaves=frozenset(leaves), relays=frozenset(nodes.keys() - leaves), pairs=frozenset(pairs))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What members are put together from; each mapping is by node."""

    mesh: MeshPolicy
    nodes: Mapping[str, NodeRule]
    facts: Mapping[str, Facts]
    addresses: Mapping[str, tuple[str, ...]]
    homes: Mapping[str, tuple[str, ...]]
    kept: Kept
    last: frozenset[str]
    """Nodes that are a subnet's gateway only where there is no other."""


def _avoid(
    leaves: Iterable[str], register: Register, health: Health, drained: frozenset[str]
) -> dict[str, frozenset[str]]:
    """Leaf → the relays that it should not depend on. Who can't be told of others keeps those that it has; one that
    came back is for those who stayed with it."""
    cut: dict[str, set[str]] = {}
    for a, b in health.cut:
        cut.setdefault(a, set()).add(b)
        cut.setdefault(b, set()).add(a)
    if not (health.down or health.resting or cut or drained):
        return {}
    gone = health.down | drained
    return {
        leaf: gone | health.resting.difference(register.homes.get(leaf, ())) | cut.get(leaf, frozenset())
        for leaf in leaves
        if leaf not in health.silent or leaf in health.down
    }


def _not_ready(mesh: MeshPolicy, nodes: Mapping[str, NodeRule], facts: Mapping[str, Facts]) -> dict[str, str]:
    """Nodes that can't be placed yet → why, and what to do."""
    versions = {n.version for n in mesh.networks}
    reasons: dict[str, str] = {}
    for node, rule in nodes.items():
        if facts[node].ipv6 or 6 not in versions:
            continue
        if 4 not in versions:
            reasons[node] = "IPv6 is disabled on it and the mesh has no IPv4 network; enable IPv6 there"
        elif rule.role is Role.RELAY:
            # It would drop the IPv6 packets of all its leaves.
            reasons[node] = "it is a relay with IPv6 disabled in a mesh with IPv6; enable IPv6 there"
    wanted = tuple(rule.pattern for rule in mesh.nodes if rule.role is Role.RELAY)
    ready = any(rule.role is Role.RELAY and node not in reasons for node, rule in nodes.items())
    if wanted and not ready:
        for node, rule in nodes.items():
            if rule.role is Role.LEAF and node not in reasons:
                own = mesh.sites[rule.site].relays if rule.site is not None and rule.site in mesh.sites else ()
                relays = ", ".join(own or wanted)
                reasons[node] = f"none of its relays has published facts: {relays}; apply the formula there"
    return dict(sorted(reasons.items()))


def _in_rule_order(mesh: MeshPolicy, nodes: Mapping[str, NodeRule]) -> list[str]:
    """The nodes in the operator's order; those of one glob by name."""
    place = {rule.pattern: i for i, rule in enumerate(mesh.nodes)}
    return sorted(nodes, key=lambda node: (place[nodes[node].pattern], node))


def _relays(mesh: MeshPolicy, nodes: Mapping[str, NodeRule]) -> list[str]:
    """The relays that are there, in the operator's order."""
    return _in_rule_order(mesh, {n: r for n, r in nodes.items() if r.role is Role.RELAY})


def _numbers(relays: Sequence[str], register: Register) -> dict[str, int]:
    """Relay → number: the register's, else the smallest that no relay ever had, in order of *relays*."""
    numbers = dict(register.numbers)
    used = set(numbers.values())
    free = 1
    for relay in relays:
        if relay not in numbers:
            while free in used:
                free += 1
            numbers[relay] = free
            used.add(free)
    return dict(sorted(numbers.items()))


def _unusable_numbers(mesh: MeshPolicy, relays: Iterable[str], numbers: Mapping[str, int]) -> list[Problem]:
    """One problem for each relay whose number makes an interface name or a port that can't be."""
    problems = []
    for relay in relays:
        name = names.trunk_name(mesh.interface, numbers[relay])
        port = names.trunk_port(mesh.listen_port, numbers[relay])
        if len(name) > names.IFNAMSIZ:
            what = f"interfaces towards it would be named {name}, longer than {names.IFNAMSIZ} characters"
            problems.append(Problem(where=f"node {relay}", what=what, do="give the mesh a shorter interface"))
        if port > 65535:
            what = f"trunks towards it would listen on port {port}"
            problems.append(Problem(where=f"node {relay}", what=what, do="give the mesh a lower listen_port"))
    return problems


def _homeless_subnets(mesh: MeshPolicy) -> list[Problem]:
    """One problem for each subnet of a family in which nodes have no address to send from."""
    versions = {n.version for n in mesh.networks}
    return [
        Problem(
            where=f"wgmesh:{mesh.name}:nodes:{rule.pattern}:routes",
            what=f"{subnet} is IPv{subnet.version}, and the mesh has no IPv{subnet.version} network",
            do="add one to network, or take the subnet away",
        )
        for rule in mesh.nodes
        for subnet in rule.routes
        if subnet.version not in versions
    ]


def _gateways(parts: _Parts) -> dict[str, list[str]]:
    """Subnet → the nodes that it is behind, in the operator's order, but those that are down after all others; only
    those that have its family."""
    found: dict[str, list[str]] = {}
    behind = {node: rule for node, rule in parts.nodes.items() if rule.routes}
    for node in sorted(_in_rule_order(parts.mesh, behind), key=parts.last.__contains__):
        for subnet in behind[node].routes:
            if subnet.version == 4 or parts.facts[node].ipv6:
                found.setdefault(str(subnet), []).append(node)
    return {subnet: moves.in_order(subnet, gateways, parts.kept.moves) for subnet, gateways in found.items()}


def _members(parts: _Parts) -> dict[str, Member]:
    """By node, sorted."""
    active: dict[str, list[str]] = {}
    standby: dict[str, list[str]] = {}
    for subnet, (first, *others) in _gateways(parts).items():
        active.setdefault(first, []).append(subnet)
        for node in others:
            standby.setdefault(node, []).append(subnet)
    members = {}
    for node, rule in parts.nodes.items():
        facts = parts.facts[node]
        across = parts.kept.crossing.get(node)
        own = parts.kept.addresses.get(node) or parts.addresses[node]
        place = parts.kept.places.get(node) or (across and across.place)
        place = place or Place(
            listen_port=parts.mesh.listen_port, endpoint=rule.endpoint, interface=parts.mesh.interface
        )
        members[node] = Member(
            node=node,
            role=rule.role,
            site=rule.site,
            nat=rule.nat,
            public_key=facts.public_key,
            next_key=facts.next_key,
            listen_port=place.listen_port,
            interface=place.interface,
            endpoint=place.endpoint,
            underlay=facts.underlay,
            addresses=own if facts.ipv6 else tuple(a for a in own if ":" not in a),
            subnets=tuple(sorted(active.get(node, ()), key=addresses.prefix_key)),
            standby_subnets=tuple(sorted(standby.get(node, ()), key=addresses.prefix_key)),
            homes=parts.homes.get(node, ()),
            idle=across.idle if across else parts.kept.idle.get(node, ()),
            trunks=across.trunks if across else (),
        )
    return members


def _links(members: Mapping[str, Member], relays: Iterable[str], direct: Iterable[tuple[str, str]]) -> tuple[Link, ...]:
    """All links, in order of their ends."""
    links = [
        Link(a=leaf.node, b=relay, kind=Kind.UPLINK) for leaf in members.values() for relay in (*leaf.homes, *leaf.idle)
    ]
    links += [Link(a=a, b=b, kind=Kind.TRUNK) for a, b in combinations(sorted(relays), 2)]
    links += [Link(a=a, b=b, kind=Kind.ACCESS) for a, b in direct]
    return tuple(sorted(links, key=lambda link: (link.a, link.b)))


def _cut_off(mesh: MeshPolicy, members: Mapping[str, Member], direct: Iterable[tuple[str, str]]) -> list[Problem]:
    """In a mesh without relays: one problem for each node that lacks a link to some other, with the first such pair."""
    linked: dict[str, set[str]] = {node: {node} for node in members}
    for a, b in direct:
        linked[a].add(b)
        linked[b].add(a)
    problems = []
    for node, reached in linked.items():
        missing = len(members) - len(reached)
        if missing:
            other = next(m for m in members if m not in reached)
            why = reach.verdict(mesh, members[node], members[other]).reason
            more = f", nor to {missing - 1} more" if missing > 1 else ""
            what = f"it has no link to {other} ({why}){more}, and the mesh has no relay"
            do = "add a relay, or give one side an endpoint and add the pair to links"
            problems.append(Problem(where=f"node {node}", what=what, do=do))
    return problems
