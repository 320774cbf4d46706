"""Editing the policy of a mesh that runs, and what its nodes have of it then."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any

from ...calm import undisturbed
from ...demo.run import policy
from ...drill import PLANNED
from ...machine import CommandFailed, Machine
from ...mesh import Mesh
from ...sessions import Concerned
from ...wait import TimedOut, wait_until

TALKS = {"web1": "app1", "laptop": "web2", "app2": "gw1"}
"""Who talks by TCP: by relays within two sites and from outside of both, and by a direct link."""
Policy = dict[str, Any]
Edit = Callable[[Policy], object]
"""What is done to the demo mesh's part of the policy."""


def edited(*edits: Edit) -> Policy:
    """The demo's policy after *edits*; whatever they take away may go without another word."""
    changed = copy.deepcopy(policy())
    changed["wgmesh"]["wg0"]["prune_guard"] = 100
    for edit in edits:
        edit(changed["wgmesh"]["wg0"])
    return changed


def converge(mesh: Mesh, wanted: Policy, until: Callable[[], object]) -> None:
    """The master has *wanted* for its policy, *until* is true, and all nodes run the plan that followed."""
    mesh.lab.salt.set_policy(wanted)
    with suppress(CommandFailed):
        # Its exit status tells that somebody did not acknowledge yet.
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
    """The same, and nobody noticed: ``calm.undisturbed`` says what that means. Afterwards all pairs go as planned."""
    with undisturbed(mesh, name, talks=talks, concerned=concerned, **more):
        converge(mesh, wanted, until)
    found = mesh.faults()
    assert not found, found


def restored(mesh: Mesh) -> None:
    """The mesh runs the demo's policy, whatever was seen on the way."""
    with suppress(TimedOut):
        converge(mesh, policy(), lambda: True)


@contextmanager
def closed(machine: Machine, *ports: str) -> Iterator[None]:
    """UDP to these ports of the machine is dropped before it arrives, and what comes from them before it leaves."""
    rules = (
        f"chain in {{ type filter hook prerouting priority -400; udp dport {{ {', '.join(ports)} }} drop; }}\n"
        f"chain out {{ type filter hook postrouting priority 400; udp sport {{ {', '.join(ports)} }} drop; }}\n"
    )
    machine.run("nft", "-f", "-", stdin=f"table inet closed {{\n{rules}}}\n")
    try:
        yield
    finally:
        machine.run("nft", "delete", "table", "inet", "closed")


# --- what nodes have ------------------------------------------------------------------------------------


def mtus(mesh: Mesh) -> set[int]:
    """The MTUs of all WireGuard interfaces of the mesh."""
    return {
        link["mtu"]
        for node in mesh.members
        for link in mesh.lab.underlay[node].json("ip", "-json", "link", "show")
        if link["ifname"].startswith(mesh.name)
    }


def keepalives(mesh: Mesh) -> set[str]:
    """What nodes have as persistent keepalive of their peers, in seconds or ``off``."""
    texts = [mesh.lab.underlay[node].run("wg", "show", "all", "persistent-keepalive") for node in mesh.members]
    return {line.split()[-1] for text in texts for line in text.splitlines()}


def ports(mesh: Mesh) -> set[int]:
    """The ports on which the access interfaces listen."""
    return {int(mesh.lab.underlay[node].run("wg", "show", mesh.name, "listen-port")) for node in mesh.members}


def stems(mesh: Mesh) -> set[str]:
    """What the WireGuard interfaces of the mesh's nodes, and the files that bring such up, are called: without what
    tells uplinks and trunks apart."""
    names: set[str] = set()
    for node in mesh.members:
        names |= set(mesh.lab.underlay[node].run("wg", "show", "interfaces").split())
        files = mesh.lab.underlay[node].run("ls", "/etc/wireguard").split()
        names |= {name.removesuffix(".conf") for name in files if name.endswith(".conf")}
    return {name.partition("-")[0] for name in names}


def holders(mesh: Mesh, node: str) -> set[str]:
    """The members that have *node* for a peer."""
    key = mesh.lab.underlay[node].run("wg", "show", mesh.name, "public-key").strip()
    return {n for n in mesh.members if key in mesh.lab.underlay[n].run("wg", "show", "all", "peers")}


def intervals(mesh: Mesh) -> set[int]:
    """Milliseconds between the packets with which the watchers look at their links."""
    return {told["interval"] for node in mesh.members for told in mesh.lab.salt.links(node, mesh.name).values()}


def linked(mesh: Mesh, a: str, b: str) -> bool:
    """Whether both nodes watch a link between them, and it is up."""
    salt = mesh.lab.salt
    return all(salt.links(x, mesh.name).get(y, {}).get("state") == "up" for x, y in ((a, b), (b, a)))


def unlinked(mesh: Mesh, a: str, b: str) -> bool:
    """Whether neither node has the other for a peer."""
    return a not in holders(mesh, b) and b not in holders(mesh, a)


def public_keys(mesh: Mesh) -> dict[str, str]:
    """Member → the public key of its access interface."""
    return {n: mesh.lab.underlay[n].run("wg", "show", mesh.name, "public-key").strip() for n in mesh.members}


def known_keys(mesh: Mesh) -> set[str]:
    """All public keys that any member has for a peer or for itself."""
    texts = [mesh.lab.underlay[n].run("wg", "show", "all", "dump") for n in mesh.members]
    fields = [line.split("\t") for text in texts for line in text.splitlines()]
    return {line[2] if len(line) == 5 else line[1] for line in fields}
