"""Nodes that get other addresses keep the former ones for a while, and the mesh keeps the networks of these.

A node moves in three steps, each a generation:

1. It has its present and its new addresses, and sends from the present ones.
2. It sends from the new addresses, and neighbours probe it there.
3. It has the new addresses only, as all others do.

Each step waits until all nodes have applied the step before.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network

from saltext_wgmesh.core.errors import PlanError, Problem
from saltext_wgmesh.core.model.addresses import address_family, first_of_each_family
from saltext_wgmesh.core.model.plan import Member, Plan
from saltext_wgmesh.core.transition.published_step import PublishedStep

Addresses = tuple[str, ...]
"""The addresses of one node. The first of each family is its source; neighbours probe the first of all."""


class _Stage(enum.Enum):
    ADD = "add"
    SWITCH = "switch"
    REMOVE = "remove"


def dual_addresses(published: PublishedStep, after: Plan) -> dict[str, Addresses]:
    """Return node → its addresses in the next step, for the nodes whose addresses are not those of *after* yet.

    A node that does not answer may have links that carry, and accepts nothing from an address that it does not know. So
    each step waits for it, unless it is down. No address is removed before all nodes send from their new ones, so that
    each relay has all networks. An address that another node still has is not assigned before that node has left it.

    Raises PlanError if nodes exchange addresses, since each of them would wait for the other.
    """
    before = published.plan.members
    has = {node: before[node].addresses for node in after.members if node in before}
    moving = published.transition.dual_addresses.keys() & has.keys()
    goals = {
        n: after.members[n].addresses for n, own in has.items() if n in moving or own != after.members[n].addresses
    }
    waits_for = _waits_for(has, goals)
    _refuse_exchange(waits_for, after)
    free = {n: tuple(a for a in goal if a not in waits_for.get(n, {})) for n, goal in goals.items()}
    if moving and not _all_applied(published):
        blocked = {**dict.fromkeys(waits_for), **dict.fromkeys(moving)}
        stages = {n: _stage(has[n], goals[n], is_moving=False) for n in goals if n not in blocked}
        kept = {n: _with_new_families(has[n], free[n]) for n in blocked}
        return kept | _in_stages(has, goals, stages, is_complete=False)
    stages = {n: _stage(has[n], goals[n], is_moving=n in moving) for n in goals if n not in waits_for}
    kept = {n: _with_new_families(first_of_each_family(has[n]), free[n]) for n in waits_for}
    return kept | _in_stages(has, goals, stages, is_complete=True)


def _with_new_families(has: Addresses, goal: Addresses) -> Addresses:
    """Return *has*, and the addresses of *goal* in families of which it has none.

    One more family is no reason for steps, also while others hold them up: the mesh has the family from now on, and a
    relay without it would drop packets.
    """
    families = {*map(address_family, has)}
    return (*has, *(a for a in goal if address_family(a) not in families))


def _in_stages(
    has: Mapping[str, Addresses], goals: Mapping[str, Addresses], stages: Mapping[str, _Stage], *, is_complete: bool
) -> dict[str, Addresses]:
    """Return node → its next addresses, if it is on the way after that; *is_complete*: no other node holds it up."""
    may_remove = is_complete and all(stage is _Stage.REMOVE for stage in stages.values())
    found: dict[str, Addresses] = {}
    for node, stage in stages.items():
        sources, goal = first_of_each_family(has[node]), goals[node]
        if stage is _Stage.ADD:
            # The addresses of a move that was given up are dropped, so that a node never has three of a family.
            both = (*sources, *(a for a in goal if a not in sources))
            # One more family is no reason for steps.
            found |= {node: both} if both != goal else {}
        elif stage is _Stage.SWITCH:
            found[node] = (*goal, *(a for a in sources if a not in goal))
        elif not may_remove:
            found[node] = has[node]
    return found


def _stage(has: Addresses, goal: Addresses, *, is_moving: bool) -> _Stage:
    changes_source = _changes_source(has, goal)
    # Even a node that has all its new addresses waits: neighbours do not listen for packets from each of them yet.
    if not set(goal) <= set(has) or (changes_source and not is_moving):
        return _Stage.ADD
    return _Stage.SWITCH if changes_source else _Stage.REMOVE


def _changes_source(has: Addresses, goal: Addresses) -> bool:
    """Return whether a node with *goal* sends from other addresses than with *has*, or is probed at another one."""
    old, new = ({address_family(a): a for a in first_of_each_family(some)} for some in (has, goal))
    return has[0] != goal[0] or any(old[family] != new[family] for family in old.keys() & new.keys())


def _all_applied(published: PublishedStep) -> bool:
    down = published.health.down_nodes
    return all(published.evidence.has_applied(node) for node in published.plan.members if node not in down)


# --- addresses of other nodes --------------------------------------------------------------------------


def _holders(has: Mapping[str, Addresses]) -> dict[str, str]:
    return {address: node for node, addresses in has.items() for address in addresses}


def _waits_for(has: Mapping[str, Addresses], goals: Mapping[str, Addresses]) -> dict[str, dict[str, str]]:
    """Return node → its addresses of *goals* that another node has at present → that node."""
    holders = _holders(has) if goals else {}
    found: dict[str, dict[str, str]] = {}
    for node, goal in goals.items():
        others = {address: other for address in goal if (other := holders.get(address, node)) != node}
        if others:
            found[node] = others
    return found


def _refuse_exchange(waits_for: Mapping[str, Mapping[str, str]], after: Plan) -> None:
    """Raise PlanError if nodes wait for each other in a circle."""
    left = {node: {*others.values()} & waits_for.keys() for node, others in waits_for.items()}
    waiting: dict[str, list[str]] = {}
    for node, others in left.items():
        for other in others:
            waiting.setdefault(other, []).append(node)
    # A thousand nodes may each take over the next one's address, so each node is looked at once.
    free = [node for node, others in left.items() if not others]
    while free:
        done = free.pop()
        del left[done]
        for node in waiting.get(done, ()):
            left[node].discard(done)
            free += [] if left[node] else [node]
    problems = [
        Problem(
            path=f"wgmesh:{after.mesh}:nodes:{node}:address",
            message=f"{', '.join(sorted(others))} has one of its addresses, and waits for it in turn",
            remedy="give one of them an address that is free, converge, and then the address that it is to have",
        )
        for node, others in left.items()
    ]
    if problems:
        raise PlanError(problems)


# --- networks ------------------------------------------------------------------------------------------


def former_networks(published: Plan, after: Plan, dual: Mapping[str, Addresses]) -> tuple[str, ...]:
    """Return the networks of *published* that *after* lacks and that have an address of *dual*, in their order."""
    if not dual or set(published.networks) <= set(after.networks):
        return ()
    present, known = ([ip_network(n) for n in plan.networks] for plan in (after, published))
    addresses = (ip_address(a) for listed in dual.values() for a in listed)
    outside = [a for a in addresses if not any(a in network for network in present)]
    return tuple(str(n) for n in known if any(a in n for a in outside))


def waiting_nodes(
    published: PublishedStep, after: Plan, former: Sequence[str], dual: Mapping[str, Addresses]
) -> frozenset[str]:
    """Return the nodes of *after* that cannot join yet, since they are new and one of four things holds.

    - A network of the node overlaps one of the *former* ones: routes of the mesh would take the node's own packets.
    - Another node still has an address that is to be the new node's, or has not applied that it leaves it.
    - The node has no address of the family of a *former* network, and is a relay or the family is IPv4. The relay would
      drop what others send by it. A leaf may lack IPv6 alone.
    - The nodes of *dual* are probed at addresses of another family than the node: their neighbours would not hear it.

    Not all relays of *after* are among them, since no leaf could stay without a relay.

    Raises PlanError if all relays are new, and the last or the last but one holds: the mesh would have none to use.
    """
    before = published.plan.members
    new = {node: member for node, member in after.members.items() if node not in before}
    if not new:
        return frozenset()
    holders = _holders({node: m.addresses for node, m in before.items() if node in after.members})
    found = {n for n, m in new.items() if not holders.keys().isdisjoint(m.addresses)}
    if not _all_applied(published):
        found |= published.transition.waiting_nodes & new.keys()
    probed = {address_family(addresses[0]) for addresses in dual.values()}
    unheard = {n for n, m in new.items() if former and (_lacks_family(m, former) or not _has_first(m, probed))}
    found |= unheard | {n for n, m in new.items() if _overlaps(m, former)}
    relays = {node for node, member in after.members.items() if member.is_relay}
    if not relays <= found:
        return frozenset(found)
    if relays & unheard:
        raise PlanError([_all_relays_are_new(after, relays & unheard)])
    return frozenset(found - relays)


def _all_relays_are_new(after: Plan, relays: Iterable[str]) -> Problem:
    return Problem(
        path=f"wgmesh:{after.mesh}:network",
        message=f"its family is not the former one's, and {', '.join(sorted(relays))} would join with it alone",
        remedy="keep the network while the relays are replaced, converge until they are, and write the other one then",
    )


def _has_first(member: Member, families: set[int]) -> bool:
    """Return whether *member* is probed at an address of each of *families*, of which there is one at a time."""
    return {address_family(member.addresses[0])} >= families


def _overlaps(member: Member, networks: Iterable[str]) -> bool:
    return any(_share(own, network) for own in _own_prefixes(member) for network in networks)


def _lacks_family(member: Member, networks: Iterable[str]) -> bool:
    lacks = {*map(address_family, networks)} - {*map(address_family, member.addresses)}
    return bool(lacks if member.is_relay else lacks - {6})


def _own_prefixes(member: Member) -> Iterator[str]:
    yield from member.networks
    yield from member.underlay


def _share(a: str, b: str) -> bool:
    one, other = ip_network(a), ip_network(b)
    return one.version == other.version and one.overlaps(other)
