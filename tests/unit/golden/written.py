"""A whole plan as text that a reviewer can read: every field of every view, a line each."""

from __future__ import annotations

from collections.abc import Iterator

from saltext_wgmesh.core.model.plan import Member, Plan
from saltext_wgmesh.core.model.view import Interface, Route, View


def text(plan: Plan) -> str:
    """The plan, node by node."""
    lines = [f"mesh {plan.mesh}: {' '.join(plan.networks)}", ""]
    lines += [f"left out: {node}: {reason}" for node, reason in plan.unplaced.items()]
    lines += [f"{link.kind.value}: {link.a} -- {link.b}" for link in plan.links]
    for node, view in plan.views.items():
        lines += ["", *_node(plan.members[node], view)]
    numbers = ", ".join(f"{relay} {number}" for relay, number in plan.allocations.relay_numbers.items())
    lines += ["", f"register: numbers: {numbers or 'none'}"]
    lines += [f"register: {node}: {' '.join(own)}" for node, own in plan.allocations.addresses.items()]
    lines += [
        f"register: homes of {node}: {', '.join(homes) or 'none'}" for node, homes in plan.allocations.relays.items()
    ]
    return "\n".join(lines) + "\n"


def _node(member: Member, view: View) -> Iterator[str]:
    yield f"{view.role.value} {view.node}: {' '.join(view.addresses)} of {' '.join(view.networks)}, mtu {view.mtu}"
    if member.relays:
        yield f"  relays: {', '.join(member.relays)}"
    for words, subnets in (("gateway of", member.subnets), ("next gateway of", member.standby_subnets)):
        if subnets:
            yield f"  {words}: {' '.join(subnets)}"
    yield f"  forwards: {'yes' if view.forward else 'no'}"
    for interface in view.interfaces:
        yield from _interface(interface)
    for route in view.routes:
        yield _route(route)


def _interface(interface: Interface) -> Iterator[str]:
    yield f"  {interface.name} ({interface.kind.value}), port {interface.listen_port or 'any'}"
    for peer in interface.peers:
        yield (
            f"    {peer.node} key {peer.public_key[:8]} at {peer.endpoint or 'wherever it calls from'}, "
            f"keepalive {peer.keepalive}: {' '.join(peer.allowed_ips)}"
        )


def _route(route: Route) -> str:
    words = ", ".join(route.via) or "unreachable"
    words += ", then any relay" if route.detour else ""
    if route.from_trunk is not None:
        words += f"; from a trunk {', '.join(route.from_trunk) or 'unreachable'}"
    return f"  to {' '.join(route.prefixes)}: {words}"
