"""The subnets of a gateway that died go to the next one."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest

from .... import faults
from ....demo.run import PRINTER, policy
from ....demo.topology import GATEWAY, OFFICE_LAN
from ....drill import PLANNED, planned_around
from ....machine import CommandFailed, Machine
from ....mesh import Mesh
from ....wait import wait_until

NEXT = "app2"
SOURCE = "web1"


@pytest.fixture(scope="module")
def two(mesh: Mesh) -> Iterator[Mesh]:
    """The mesh with a second gateway, at which the same address can be reached."""
    changed = copy.deepcopy(policy())
    nodes = changed["wgmesh"][mesh.name]["nodes"]
    second = {**nodes["app*"], "routes": [OFFICE_LAN]}
    changed["wgmesh"][mesh.name]["nodes"] = {GATEWAY: nodes[GATEWAY], NEXT: second, **nodes}
    mesh.lab.salt.set_policy(changed)
    mesh.lab.salt.salt_run("wgmesh.converge")
    mesh.settle()
    mesh.lab.underlay[NEXT].run("ip", "address", "add", f"{PRINTER.address}/32", "dev", "lo")
    yield mesh
    mesh.lab.underlay[NEXT].run("ip", "address", "del", f"{PRINTER.address}/32", "dev", "lo")
    # With the facts in which it has that network, the policy would be refused.
    mesh.lab.salt.salt(NEXT, "wgmesh.apply")
    mesh.lab.salt.set_policy(policy())
    mesh.lab.salt.salt_run("wgmesh.converge")
    mesh.settle()


def test_the_next_gateway_has_the_subnet(two: Mesh):
    """Before, the first one of the policy has it, whatever else could."""
    assert _answers(two) == GATEWAY
    with faults.unplugged(two.lab.underlay, GATEWAY):
        wait_until(lambda: _answers(two) == NEXT, PLANNED, f"{NEXT} to have the subnet")
        wait_until(planned_around(two, [GATEWAY], [GATEWAY]), PLANNED, "all to know", every=0.5)


def test_it_keeps_it_when_the_first_is_back(two: Mesh):
    """Until an operator or a quiet period says otherwise."""
    two.settle(deadline=2 * PLANNED)
    assert _answers(two) == NEXT


def _answers(mesh: Mesh) -> str | None:
    """The gateway by which the address is reached: one hop more leads to it behind the first than at the second."""
    machine = mesh.lab.underlay[SOURCE]
    try:
        machine.run("ping", "-q", "-c", "1", "-W", "1", PRINTER.address)
    except CommandFailed:
        return None
    counted = mesh.lab.underlay[NEXT]
    before = _received(counted)
    machine.run("ping", "-q", "-c", "3", "-i", "0.1", "-W", "1", PRINTER.address, check=False)
    return NEXT if _received(counted) - before >= 3 else GATEWAY


def _received(machine: Machine) -> int:
    """The echo requests that the machine has heard."""
    names, values = (
        line.split() for line in machine.run("cat", "/proc/net/snmp").splitlines() if line.startswith("Icmp:")
    )
    return int(dict(zip(names, values, strict=True))["InEchos"])
