"""A node with a new underlay address is reached there, and planned with it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from ....demo.run import policy
from ....disruption import HEALED, mended, steady, streaming
from ....machine import CommandFailed
from ....mesh import Mesh
from ....planned import await_links, status
from ....wait import wait_until


@contextmanager
def readdressed(mesh: Mesh, name: str, old: str, new: str, *routes: tuple[str, str]) -> Iterator[None]:
    """Replace the address *old* of the machine's first interface by *new*, and undo it at the end.

    Both have a prefix length. *routes* are the interface's prefixes and next hops.
    """
    _change(mesh, name, old, new, routes)
    try:
        yield
    finally:
        _change(mesh, name, new, old, routes)


def test_nat_box_address_change_heals(mesh: Mesh):
    """A leaf behind a NAT box is reached again soon after the box gets another public address."""
    pairs = {"laptop": "web1"}
    relays = (("203.0.113.0/26", "198.51.100.1"), ("203.0.113.64/26", "198.51.100.2"))
    with streaming(mesh, pairs) as felt:
        with readdressed(mesh, "home-router", "198.51.100.3/24", "198.51.100.33/24", *relays):
            steady(mesh, pairs)
        steady(mesh, pairs)
    assert felt.longest < HEALED
    assert mended(mesh, pairs).losing == []


def test_direct_neighbour_address_change_heals(mesh: Mesh):
    """A direct neighbour is reached at its new address, which its next facts bring into the boot files of others.

    The minion is restarted, since Salt's connection from the old address would end only after a long timeout.
    """
    pairs = {"app1": "app2", "app2": "web1"}

    def known() -> bool:
        return "10.2.2.99:51820" in mesh.lab.underlay["app1"].run("cat", f"/etc/wireguard/{mesh.name}.conf")

    with streaming(mesh, pairs) as felt, ExitStack() as stack:
        stack.enter_context(readdressed(mesh, "app2", "10.2.2.32/24", "10.2.2.99/24", ("default", "10.2.2.1")))
        steady(mesh, pairs)
        mesh.lab.salt.restart_minion("app2")
        wait_until(known, 90, "app1 to have the new address", every=0.5)
    assert felt.longest < HEALED
    mesh.lab.salt.restart_minion("app2")
    assert mended(mesh, pairs).losing == []


def test_relay_endpoint_change_by_policy_heals(mesh: Mesh):
    """Leaves and relays reach a relay at its new endpoint in the policy. Until then each leaf uses another relay."""
    changed = copy.deepcopy(policy())
    changed["wgmesh"][mesh.name]["nodes"]["relay-fra2"]["endpoint"] = "203.0.113.12"
    pairs = {"web1": "app1", "web2": "app2"}
    with streaming(mesh, pairs) as felt:
        with readdressed(mesh, "relay-fra2", "203.0.113.11/26", "203.0.113.12/26", ("default", "203.0.113.1")):
            mesh.lab.salt.restart_minion("relay-fra2")
            _converge(mesh, changed)
            await_links(mesh.lab.salt, mesh.name, set(mesh.members), deadline=90)
        mesh.lab.salt.restart_minion("relay-fra2")
        _converge(mesh, policy())
    assert felt.longest < HEALED
    assert mended(mesh, pairs).losing == []
    assert mesh.faults() == []


def _change(mesh: Mesh, name: str, old: str, new: str, routes: tuple[tuple[str, str], ...]) -> None:
    machine = mesh.lab.underlay[name]
    machine.run("ip", "address", "add", new, "dev", "eth0")
    machine.run("ip", "address", "del", old, "dev", "eth0")
    for prefix, hop in routes:
        machine.run("ip", "route", "replace", prefix, "via", hop)
    machine.run("conntrack", "--flush")


def _converge(mesh: Mesh, wanted: dict[str, Any]) -> None:
    """Set the policy to *wanted* and converge until all nodes run the plan."""
    mesh.lab.salt.set_policy(wanted)

    def settled() -> bool:
        # The exit status is 1 if some node did not acknowledge.
        with suppress(CommandFailed):
            mesh.lab.salt.salt_run("wgmesh.converge")
        return not status(mesh.lab.salt, mesh.name)["not_acknowledged"]

    wait_until(settled, 90, "all to run it", every=1.0)
