"""The subnets of a dead gateway move to the next one."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest

from .... import faults
from ....demo.run import PRINTER, policy
from ....demo.topology import GATEWAY, OFFICE_LAN
from ....disruption import PLANNED, planned_around
from ....machine import CommandFailed, Machine
from ....mesh import Mesh
from ....wait import wait_until

NEXT = "app2"
SOURCE = "web1"


@pytest.fixture(scope="module")
def two(mesh: Mesh) -> Iterator[Mesh]:
    """Yield the mesh with a second gateway, behind which the same address is reachable."""
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
    # The policy would be refused while the node's facts have that network.
    mesh.lab.salt.salt(NEXT, "wgmesh.apply")
    mesh.lab.salt.set_policy(policy())
    mesh.lab.salt.salt_run("wgmesh.converge")
    mesh.settle()


def test_next_gateway_gets_subnet(two: Mesh):
    """The first gateway in the policy is active. After its death the next one answers."""
    assert _answers(two) == GATEWAY
    with faults.unplugged(two.lab.underlay, GATEWAY):
        wait_until(lambda: _answers(two) == NEXT, PLANNED, f"{NEXT} to have the subnet")
        wait_until(planned_around(two, [GATEWAY], [GATEWAY]), PLANNED, "all to know", every=0.5)


def test_next_gateway_keeps_subnet(two: Mesh):
    """The next gateway keeps the subnet when the first one returns."""
    two.settle(deadline=2 * PLANNED)
    assert _answers(two) == NEXT


def _answers(mesh: Mesh) -> str | None:
    """Return the gateway that answers for the address, found by the echo requests that NEXT itself receives."""
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
    """Return the number of echo requests that the machine has received."""
    names, values = (
        line.split() for line in machine.run("cat", "/proc/net/snmp").splitlines() if line.startswith("Icmp:")
    )
    return int(dict(zip(names, values, strict=True))["InEchos"])
