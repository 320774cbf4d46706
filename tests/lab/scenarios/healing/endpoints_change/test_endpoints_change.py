"""A node with a new address is reached there, and so it is planned from then on."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from ....demo.run import policy
from ....drill import HEALED, mended, steady, streaming
from ....machine import CommandFailed
from ....mesh import Mesh
from ....planned import await_links, status
from ....wait import wait_until


@contextmanager
def readdressed(mesh: Mesh, name: str, old: str, new: str, *routes: tuple[str, str]) -> Iterator[None]:
    """The machine's first interface has the address *new* (with prefix length) instead of *old*; *routes* are its
    prefixes and next hops. In the end it has the old one again."""
    _change(mesh, name, old, new, routes)
    try:
        yield
    finally:
        _change(mesh, name, new, old, routes)


def test_a_nat_box_gets_another_address(mesh: Mesh):
    pairs = {"laptop": "web1"}
    relays = (("203.0.113.0/26", "198.51.100.1"), ("203.0.113.64/26", "198.51.100.2"))
    with streaming(mesh, pairs) as felt:
        with readdressed(mesh, "home-router", "198.51.100.3/24", "198.51.100.33/24", *relays):
            steady(mesh, pairs)
        steady(mesh, pairs)
    assert felt.longest < HEALED
    assert mended(mesh, pairs).losing == []


def test_a_direct_neighbour_gets_another_address(mesh: Mesh):
    """Its next facts carry it, and the others' configuration for boot has it then. Salt's own connection, which began
    at the old address, would die in its own time: the minion is started again."""
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


def test_a_relay_gets_another_address_by_the_policy(mesh: Mesh):
    """Its leaves and the other relays find it there; each leaf has another relay meanwhile."""
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
    """All run what the policy *wanted* leads to."""
    mesh.lab.salt.set_policy(wanted)

    def settled() -> bool:
        # Its status tells if somebody did not acknowledge.
        with suppress(CommandFailed):
            mesh.lab.salt.salt_run("wgmesh.converge")
        return not status(mesh.lab.salt, mesh.name)["not_acknowledged"]

    wait_until(settled, 90, "all to run it", every=1.0)
