"""A node with a new address is reached there, and so it is planned from then on."""

from __future__ import annotations

import copy

from ....demo.run import policy
from ....drill import HEALED, mended, streaming
from ....mesh import Mesh
from ....planned import status
from ....wait import wait_until


def test_a_nat_box_gets_another_address(mesh: Mesh):
    router = mesh.lab.underlay["home-router"]
    pairs = {"laptop": "web1"}
    with streaming(mesh, pairs) as felt:
        router.run("ip", "address", "add", "198.51.100.33/24", "dev", "eth0")
        router.run("ip", "address", "del", "198.51.100.3/24", "dev", "eth0")
        router.run("ip", "route", "replace", "203.0.113.0/26", "via", "198.51.100.1")
        router.run("ip", "route", "replace", "203.0.113.64/26", "via", "198.51.100.2")
        router.run("conntrack", "--flush")
    assert felt.longest < HEALED
    assert mended(mesh, pairs).losing == []


def test_a_direct_neighbour_gets_another_address(mesh: Mesh):
    """Its next facts carry it, and the others' configuration for boot has it then. Salt's own connection, which began
    at the old address, would die in its own time: the minion is started again."""
    machine = mesh.lab.underlay["web2"]
    pairs = {"web1": "web2", "web2": "app1"}
    with streaming(mesh, pairs) as felt:
        machine.run("ip", "address", "add", "10.1.1.99/24", "dev", "eth0")
        machine.run("ip", "address", "del", "10.1.1.22/24", "dev", "eth0")
        machine.run("ip", "route", "replace", "default", "via", "10.1.1.1")
    assert felt.longest < HEALED

    mesh.lab.salt.restart_minion("web2")

    def known() -> bool:
        return "10.1.1.99:51820" in mesh.lab.underlay["web1"].run("cat", f"/etc/wireguard/{mesh.name}.conf")

    assert mended(mesh, pairs, known).losing == []


def test_a_relay_gets_another_address_by_the_policy(mesh: Mesh):
    """Its leaves and the other relays find it there; nothing is lost, since each has another relay meanwhile."""
    machine = mesh.lab.underlay["relay-fra2"]
    changed = copy.deepcopy(policy())
    changed["wgmesh"][mesh.name]["nodes"]["relay-fra2"]["endpoint"] = "203.0.113.12"
    pairs = {"web1": "app1", "web2": "app2"}
    with streaming(mesh, pairs) as felt:
        machine.run("ip", "address", "add", "203.0.113.12/26", "dev", "eth0")
        mesh.lab.salt.set_policy(changed)
        mesh.lab.salt.salt_run("wgmesh.converge")
        machine.run("ip", "address", "del", "203.0.113.11/26", "dev", "eth0")
        machine.run("ip", "route", "replace", "default", "via", "203.0.113.1")
    assert felt.longest < HEALED

    def settled() -> bool:
        return not status(mesh.lab.salt, mesh.name)["not_acknowledged"]

    wait_until(settled, 60, "all to run it", every=1.0)
    assert mended(mesh, pairs).losing == []
    assert mesh.faults() == []
