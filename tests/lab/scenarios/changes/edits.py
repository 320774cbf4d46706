"""Edits of a running mesh's policy, and the nodes' state afterwards."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any

from ...demo.run import policy
from ...disruption import PLANNED
from ...lossless import undisturbed
from ...machine import CommandFailed, Machine
from ...mesh import Mesh
from ...sessions import Concerned
from ...wait import TimedOut, wait_until

TALKS = {"web1": "app1", "laptop": "web2", "app2": "gw1"}
"""The ends of TCP connections: through relays between two sites and from outside, and over a direct link."""
Policy = dict[str, Any]
Edit = Callable[[Policy], object]
"""A change of the demo mesh's policy."""


def edited(*edits: Edit) -> Policy:
    """The demo's policy after *edits*. The prune guard is off, so that removals need no confirmation."""
    changed = copy.deepcopy(policy())
    changed["wgmesh"]["wg0"]["prune_guard"] = 100
    for edit in edits:
        edit(changed["wgmesh"]["wg0"])
    return changed


def converge(mesh: Mesh, wanted: Policy, until: Callable[[], object]) -> None:
    """Set the policy to *wanted*, and wait until *until* is true and all nodes run the plan that follows."""
    mesh.lab.salt.set_policy(wanted)
    with suppress(CommandFailed):
        # The exit status is 1 while some node has not acknowledged.
        mesh.lab.salt.salt_run("wgmesh.converge")
    wait_until(until, 8 * PLANNED, "the nodes to have it", every=0.5)
    mesh.settle(deadline=2 * PLANNED)


def changed(
    mesh: Mesh,
    name: str,
    wanted: Policy,
    until: Callable[[], object],
    concerned: Concerned = (),
    *,
    talks: Mapping[str, str] = MappingProxyType(TALKS),
    **more: Any,
) -> None:
    """As ``converge``, without a disturbance (see ``lossless.undisturbed``). Then all pairs use the planned paths."""
    with undisturbed(mesh, name, talks=talks, concerned=concerned, **more):
        converge(mesh, wanted, until)
    found = mesh.faults()
    assert not found, found


def restored(mesh: Mesh) -> None:
    """Return the mesh to the demo's policy, without checks on the way."""
    with suppress(TimedOut):
        converge(mesh, policy(), lambda: True)


@contextmanager
def closed(machine: Machine, *ports: str) -> Iterator[None]:
    """Drop UDP to these ports of the machine before it arrives, and UDP from them before it leaves."""
    rules = (
        f"chain in {{ type filter hook prerouting priority -400; udp dport {{ {', '.join(ports)} }} drop; }}\n"
        f"chain out {{ type filter hook postrouting priority 400; udp sport {{ {', '.join(ports)} }} drop; }}\n"
    )
    machine.run("nft", "-f", "-", stdin=f"table inet closed {{\n{rules}}}\n")
    try:
        yield
    finally:
        machine.run("nft", "delete", "table", "inet", "closed")


# --- state of the nodes ---------------------------------------------------------------------------------


def mtus(mesh: Mesh) -> set[int]:
    """Return the MTUs of all WireGuard interfaces of the mesh."""
    return {
        link["mtu"]
        for node in mesh.members
        for link in mesh.lab.underlay[node].json("ip", "-json", "link", "show")
        if link["ifname"].startswith(mesh.name)
    }


def keepalives(mesh: Mesh) -> set[str]:
    """Return the persistent keepalives of the nodes' peers, in seconds or ``off``."""
    texts = [mesh.lab.underlay[node].run("wg", "show", "all", "persistent-keepalive") for node in mesh.members]
    return {line.split()[-1] for text in texts for line in text.splitlines()}


def ports(mesh: Mesh) -> set[int]:
    """Return the ports on which the access interfaces listen."""
    return {int(mesh.lab.underlay[node].run("wg", "show", mesh.name, "listen-port")) for node in mesh.members}


def stems(mesh: Mesh) -> set[str]:
    """Return the names of the nodes' WireGuard interfaces and wg-quick files, without suffixes like ``-u1``."""
    names: set[str] = set()
    for node in mesh.members:
        names |= set(mesh.lab.underlay[node].run("wg", "show", "interfaces").split())
        files = mesh.lab.underlay[node].run("ls", "/etc/wireguard").split()
        names |= {name.removesuffix(".conf") for name in files if name.endswith(".conf")}
    return {name.partition("-")[0] for name in names}


def holders(mesh: Mesh, node: str) -> set[str]:
    """Return the members that have *node* as a peer."""
    key = mesh.lab.underlay[node].run("wg", "show", mesh.name, "public-key").strip()
    return {n for n in mesh.members if key in mesh.lab.underlay[n].run("wg", "show", "all", "peers")}


def intervals(mesh: Mesh) -> set[int]:
    """Return the milliseconds between BFD packets of the watchers."""
    return {link["interval"] for node in mesh.members for link in mesh.lab.salt.links(node, mesh.name).values()}


def linked(mesh: Mesh, a: str, b: str) -> bool:
    """Return whether both nodes report the link between them as up."""
    salt = mesh.lab.salt
    return all(salt.links(x, mesh.name).get(y, {}).get("state") == "up" for x, y in ((a, b), (b, a)))


def unlinked(mesh: Mesh, a: str, b: str) -> bool:
    """Return whether neither node has the other as a peer."""
    return a not in holders(mesh, b) and b not in holders(mesh, a)


def public_keys(mesh: Mesh) -> dict[str, str]:
    """Return member → the public key of its access interface."""
    return {n: mesh.lab.underlay[n].run("wg", "show", mesh.name, "public-key").strip() for n in mesh.members}


def known_keys(mesh: Mesh) -> set[str]:
    """Return all public keys that any member has for a peer or for itself."""
    texts = [mesh.lab.underlay[n].run("wg", "show", "all", "dump") for n in mesh.members]
    fields = [line.split("\t") for text in texts for line in text.splitlines()]
    return {line[2] if len(line) == 5 else line[1] for line in fields}
