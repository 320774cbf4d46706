"""Mutants: ways to break a plan on purpose, each in one place of one view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.core.model.view import Interface, Kind, Peer, Route, View

Draw = Callable[[st.SearchStrategy[Any]], Any]
Mutant = Callable[[Plan, Draw], Plan]


def with_view(plan: Plan, view: View) -> Plan:
    """Return the plan with *view* in place of the node's."""
    return replace(plan, views={**plan.views, view.node: view})


def with_route(plan: Plan, view: View, old: Route, new: Route) -> Plan:
    """Return the plan with one Route of one view replaced."""
    return with_view(plan, replace(view, routes=tuple(new if r is old else r for r in view.routes)))


def with_interface(plan: Plan, view: View, old: Interface, new: Interface | None) -> Plan:
    """Return the plan with one interface of one view replaced, or left out."""
    rest = (new if i is old else i for i in view.interfaces)
    return with_view(plan, replace(view, interfaces=tuple(i for i in rest if i is not None)))


def with_peer(plan: Plan, old_peer: tuple[View, Interface, Peer], new: Peer | None) -> Plan:
    """Return the plan with one peer of one interface replaced, or left out."""
    view, interface, old = old_peer
    peers = (new if p is old else p for p in interface.peers)
    return with_interface(plan, view, interface, replace(interface, peers=tuple(p for p in peers if p is not None)))


def some_view(plan: Plan, draw: Draw, relays_only: bool = False) -> View:
    """Draw any view, or any relay's."""
    views = [v for v in plan.views.values() if plan.members[v.node].is_relay or not relays_only]
    assume(views)
    return draw(st.sampled_from(views))


def some_peer(plan: Plan, draw: Draw) -> tuple[View, Interface, Peer]:
    """Draw any peer of any interface."""
    view = some_view(plan, draw)
    peers = [(view, i, p) for i in view.interfaces for p in i.peers]
    assume(peers)
    return draw(st.sampled_from(peers))


def some_route(plan: Plan, draw: Draw, relays_only: bool = False) -> tuple[View, Route]:
    """Draw any Route that has next hops."""
    view = some_view(plan, draw, relays_only)
    routes = [r for r in view.routes if r.via]
    assume(routes)
    return view, draw(st.sampled_from(routes))


# --- certainly broken ----------------------------------------------------------------------------------


def drop_peer(plan: Plan, draw: Draw) -> Plan:
    """One end of a link is gone."""
    return with_peer(plan, some_peer(plan, draw), None)


def drop_interface(plan: Plan, draw: Draw) -> Plan:
    """A trunk, an uplink or an access interface with peers is gone at one end."""
    view, interface, _ = some_peer(plan, draw)
    return with_interface(plan, view, interface, None)


def drop_trunk_at_both_ends(plan: Plan, draw: Draw) -> Plan:
    """Neither relay has the trunk that the plan lists."""
    trunks = [link for link in plan.links if link.kind is Kind.TRUNK]
    assume(trunks)
    link = draw(st.sampled_from(trunks))
    for here, there in ((link.a, link.b), (link.b, link.a)):
        view = plan.views[here]
        gone = next(i for i in view.interfaces if i.kind is Kind.TRUNK and i.peers[0].node == there)
        plan = with_interface(plan, view, gone, None)
    return plan


def change_key(plan: Plan, draw: Draw) -> Plan:
    """A peer has a key that no node has."""
    view, interface, peer = some_peer(plan, draw)
    return with_peer(plan, (view, interface, peer), replace(peer, public_key="A" * 43 + "="))


def change_probed_address(plan: Plan, draw: Draw) -> Plan:
    """A link would be probed at an address that is not its other end's."""
    view, interface, peer = some_peer(plan, draw)
    return with_peer(plan, (view, interface, peer), replace(peer, address=view.addresses[0]))


def wrong_member_key(plan: Plan, draw: Draw) -> Plan:
    """Two members have one key."""
    assume(len(plan.members) > 1)
    a, b = draw(st.permutations(sorted(plan.members)))[:2]
    shared = replace(plan.members[a], public_key=plan.members[b].public_key)
    return replace(plan, members={**plan.members, a: shared})


def duplicate_address(plan: Plan, draw: Draw) -> Plan:
    """A member and its view have the address of another."""
    assume(len(plan.members) > 1)
    a, b = draw(st.permutations(sorted(plan.members)))[:2]
    addresses = plan.members[b].addresses
    shared = replace(plan.members[a], addresses=addresses)
    plan = replace(plan, members={**plan.members, a: shared})
    return with_view(plan, replace(plan.views[a], addresses=addresses))


def move_allowed_ip(plan: Plan, draw: Draw) -> Plan:
    """A prefix stands on another peer of its interface."""
    view, interface, peer = some_peer(plan, draw)
    others = [p for p in interface.peers if p is not peer]
    assume(others)
    other, moved = draw(st.sampled_from(others)), draw(st.sampled_from(peer.allowed_ips))
    # The proof lets a subnet stand on its standby gateway, as it does while the subnet moves between gateways.
    assume(moved not in plan.members[other.node].standby_subnets)
    less = replace(peer, allowed_ips=tuple(p for p in peer.allowed_ips if p != moved))
    more = replace(other, allowed_ips=(*other.allowed_ips, moved))
    peers = tuple(less if p is peer else more if p is other else p for p in interface.peers)
    return with_interface(plan, view, interface, replace(interface, peers=peers))


def drop_allowed_ip(plan: Plan, draw: Draw) -> Plan:
    """A peer lacks a prefix of a family of the node that is not behind the node itself."""
    view, interface, peer = some_peer(plan, draw)
    member = plan.members[view.node]
    own = (*member.subnets, *member.standby_subnets)
    # On an access interface the subnets for which the peer stands by are optional.
    optional = plan.members[peer.node].standby_subnets if interface.kind is Kind.ACCESS else ()
    families = {":" in a for a in view.addresses}
    needed = [p for p in peer.allowed_ips if p not in (*own, *optional) and (":" in p) in families]
    assume(needed)
    gone = draw(st.sampled_from(needed))
    return with_peer(plan, (view, interface, peer), replace(peer, allowed_ips=tuple(set(peer.allowed_ips) - {gone})))


def add_allowed_ip(plan: Plan, draw: Draw) -> Plan:
    """A peer may use a prefix that no member has."""
    view, interface, peer = some_peer(plan, draw)
    extra = draw(st.sampled_from(["0.0.0.0/0", "198.18.0.0/24", "10.100.0.0/24", "fd00:64:0:0:1::/80"]))
    return with_peer(plan, (view, interface, peer), replace(peer, allowed_ips=(*peer.allowed_ips, extra)))


def change_listen_port(plan: Plan, draw: Draw) -> Plan:
    """An interface for which a node has an endpoint listens on another port."""
    named = [
        (p.node, view.node) for view in plan.views.values() for i in view.interfaces for p in i.peers if p.endpoint
    ]
    assume(named)
    target, opener = draw(st.sampled_from(named))
    view = plan.views[target]
    interface = next(i for i in view.interfaces for p in i.peers if p.node == opener)
    # A forwarded port shifts with the access interface's: only trunks are distinguished by their own port.
    assume(interface.kind is Kind.TRUNK or plan.members[target].endpoint is None)
    return with_interface(plan, view, interface, replace(interface, listen_port=interface.listen_port + 1000))


def change_endpoint(plan: Plan, draw: Draw) -> Plan:
    """An endpoint has another port or another host."""
    view, interface, peer = some_peer(plan, draw)
    assume(peer.endpoint)
    host, _, port = str(peer.endpoint).rpartition(":")
    new = draw(st.sampled_from([f"{host}:{int(port) + 999}", f"192.0.2.99:{port}"]))
    return with_peer(plan, (view, interface, peer), replace(peer, endpoint=new))


def no_forwarding(plan: Plan, draw: Draw) -> Plan:
    """A relay or a gateway does not forward; or another node does."""
    view = some_view(plan, draw)
    return with_view(plan, replace(view, forward=not view.forward))


def rename_interface(plan: Plan, draw: Draw) -> Plan:
    """An interface has a name that is too long, or that of another."""
    view, interface, _ = some_peer(plan, draw)
    names = [i.name for i in view.interfaces if i is not interface]
    new = draw(st.sampled_from(["wg0-a-name-too-long", *names]))
    return with_interface(plan, view, interface, replace(interface, name=new))


def drop_view(plan: Plan, draw: Draw) -> Plan:
    """A member has no view."""
    gone = some_view(plan, draw)
    return replace(plan, views={n: v for n, v in plan.views.items() if n != gone.node})


def drop_route(plan: Plan, draw: Draw) -> Plan:
    """The prefixes of the mesh's networks have no Route at a leaf with uplinks: it reaches only its relays."""
    leaves = [plan.views[n] for n, m in plan.members.items() if m.relays and len(plan.members) > len(m.relays) + 1]
    assume(leaves)
    view = draw(st.sampled_from(leaves))
    general = [r for r in view.routes if set(r.prefixes) & set(plan.networks)]
    covered = {p for r in view.routes if r not in general for p in r.prefixes}
    families = {":" in a for a in view.addresses}
    targets = {
        p
        for n, m in plan.members.items()
        for p, a in zip(m.prefixes, m.addresses, strict=False)
        if n != view.node and (":" in a) in families
    }
    assume(targets - covered)
    return with_view(plan, replace(view, routes=tuple(r for r in view.routes if r not in general)))


def unknown_next_hop(plan: Plan, draw: Draw) -> Plan:
    """A Route names a node that is not a neighbour."""
    view, route = some_route(plan, draw)
    at = draw(st.integers(0, len(route.via)))
    return with_route(plan, view, route, replace(route, via=(*route.via[:at], "stranger", *route.via[at:])))


def split_subnet(plan: Plan, draw: Draw) -> Plan:
    """A part of a subnet is unreachable at a node that knows the subnet."""
    choices = [
        (v, s)
        for m in plan.members.values()
        for s in m.subnets
        for v in plan.views.values()
        if any(s in r.prefixes for r in v.routes)
    ]
    assume(choices)
    view, subnet = draw(st.sampled_from(choices))
    address = subnet.partition("/")[0]
    part = f"{address}/128" if ":" in subnet else f"{address}/32"
    from_trunk = () if plan.members[view.node].is_relay else None
    extra = Route(prefixes=(part,), via=(), from_trunk=from_trunk)
    return with_view(plan, replace(view, routes=(*view.routes, extra)))


def lose_one_target(plan: Plan, draw: Draw) -> Plan:
    """At one relay, one prefix of a Route has no next hop."""
    return _take_out(plan, draw, Route(prefixes=(), via=(), from_trunk=()))


CERTAIN: tuple[Mutant, ...] = (
    drop_peer,
    drop_interface,
    drop_trunk_at_both_ends,
    change_key,
    change_probed_address,
    wrong_member_key,
    duplicate_address,
    move_allowed_ip,
    drop_allowed_ip,
    add_allowed_ip,
    change_listen_port,
    change_endpoint,
    no_forwarding,
    rename_interface,
    drop_view,
    drop_route,
    unknown_next_hop,
    split_subnet,
    lose_one_target,
)


def _take_out(plan: Plan, draw: Draw, new: Route | None) -> Plan:
    """One prefix of one relay's Route gets a Route of its own: *new*, or the old one without next hops for trunks."""
    view, route = some_route(plan, draw, relays_only=True)
    gone = draw(st.sampled_from(route.prefixes))
    families = {":" in a for a in view.addresses}
    assume((":" in gone) in families)
    own = replace(new or replace(route, from_trunk=()), prefixes=(gone,))
    rest = replace(route, prefixes=tuple(p for p in route.prefixes if p != gone))
    plan = with_route(plan, view, route, rest)
    view = plan.views[view.node]
    return with_view(plan, replace(view, routes=(*(r for r in view.routes if r.prefixes), own)))


# --- broken or harmless --------------------------------------------------------------------------------


def swap_vias(plan: Plan, draw: Draw) -> Plan:
    """Two Routes of a view exchange their next hops."""
    view, one = some_route(plan, draw)
    other = draw(st.sampled_from(view.routes))
    assume(one is not other)
    plan = with_route(plan, view, one, replace(one, via=other.via, from_trunk=other.from_trunk))
    return with_route(plan, plan.views[view.node], other, replace(other, via=one.via, from_trunk=one.from_trunk))


def drop_next_hop(plan: Plan, draw: Draw) -> Plan:
    """A Route lacks one of its next hops."""
    view, route = some_route(plan, draw)
    gone = draw(st.sampled_from(route.via))
    return with_route(plan, view, route, replace(route, via=tuple(n for n in route.via if n != gone)))


def reorder_next_hops(plan: Plan, draw: Draw) -> Plan:
    """The next hops of a Route are in another order."""
    view, route = some_route(plan, draw)
    return with_route(plan, view, route, replace(route, via=tuple(draw(st.permutations(route.via)))))


def no_detour(plan: Plan, draw: Draw) -> Plan:
    """A relay has no detour for a Route."""
    view, route = some_route(plan, draw, relays_only=True)
    return with_route(plan, view, route, replace(route, detour=False))


def drop_from_trunk(plan: Plan, draw: Draw) -> Plan:
    """Packets from a trunk have one next hop less."""
    view, route = some_route(plan, draw, relays_only=True)
    assume(route.from_trunk)
    gone = draw(st.sampled_from(route.from_trunk))
    return with_route(plan, view, route, replace(route, from_trunk=tuple(n for n in route.from_trunk if n != gone)))


def scramble_from_trunk(plan: Plan, draw: Draw) -> Plan:
    """Packets from a trunk have another order of next hops, or go to any relay."""
    view, route = some_route(plan, draw, relays_only=True)
    trunks = [i.peers[0].node for i in view.interfaces if i.kind is Kind.TRUNK]
    hops = draw(st.permutations(sorted({*trunks, *(route.from_trunk or ())})))
    return with_route(plan, view, route, replace(route, from_trunk=tuple(hops)))


def stop_one_target_from_trunks(plan: Plan, draw: Draw) -> Plan:
    """At one relay, one prefix of a Route is unreachable for packets from a trunk."""
    return _take_out(plan, draw, None)


POSSIBLE: tuple[Mutant, ...] = (
    swap_vias,
    drop_next_hop,
    reorder_next_hops,
    no_detour,
    drop_from_trunk,
    scramble_from_trunk,
    stop_one_target_from_trunks,
)
"""The oracle decides which of them are broken."""

WITHIN_A_ROUTE: tuple[Mutant, ...] = (
    drop_next_hop,
    reorder_next_hops,
    no_detour,
    drop_from_trunk,
    stop_one_target_from_trunks,
)
"""The proof may refuse only the broken ones of these: they leave every link and every destination as they were."""
