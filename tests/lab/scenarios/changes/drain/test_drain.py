"""A drained node forwards nothing, may be stopped, and stays drained until an operator undrains it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ....demo.run import PRINTER
from ....demo.topology import GATEWAY, OFFICE_LAN
from ....disruption import PLANNED, first_relay, planned_around, relays_used, ways
from ....lossless import undisturbed
from ....machine import Machine
from ....mesh import Mesh
from ....overlay import Stream
from ....planned import await_links, status
from ....wait import wait_until
from ..edits import TALKS, changed, converge, edited, mtus, policy

memory: dict[str, str] = {}


def _relays(mesh: Mesh) -> dict[str, list[str]]:
    nodes = status(mesh.lab.salt, mesh.name)["nodes"]
    return {node: row["relays"] for node, row in nodes.items() if row["relays"]}


def _forwarded(machine: Machine) -> int:
    """Return the number of packets that the machine has forwarded, of both families."""
    lines = [line.split() for line in machine.run("cat", "/proc/net/snmp").splitlines() if line.startswith("Ip:")]
    four = int(dict(zip(*lines, strict=True))["ForwDatagrams"])
    six = dict(line.split() for line in machine.run("cat", "/proc/net/snmp6").splitlines())
    return four + int(six["Ip6OutForwDatagrams"])


def test_drained_relay_forwards_nothing(mesh: Mesh):
    """A drained relay forwards no packet, and the command reports that it is safe to stop."""
    relay = memory["relay"] = first_relay(mesh, "web1")
    machine = mesh.lab.underlay[relay]
    with undisturbed(mesh, f"drain {relay}", talks=TALKS):
        result = mesh.lab.salt.salt_run("wgmesh.drain", relay)
        assert result["safe_to_stop"] is True, result
        assert relay not in {first for first, *_ in _relays(mesh).values()}
        before = _forwarded(machine)
        assert relay not in relays_used(ways(mesh, TALKS))
        # The measurement of the paths lasts some seconds, with all flows running.
        assert _forwarded(machine) == before
    mesh.settle(deadline=2 * PLANNED)


def test_drained_relay_is_unused_by_new_plan(mesh: Mesh):
    """A change of the policy does not bring traffic back to the drained relay."""
    relay = memory["relay"]
    changed(mesh, "mtu, during a drain", edited(lambda m: m.update(mtu=1400)), lambda: mtus(mesh) == {1400})
    assert relay not in {first for first, *_ in _relays(mesh).values()}
    assert relay not in relays_used(ways(mesh, TALKS))


def test_drained_relay_stays_drained_after_stop(mesh: Mesh):
    """The relay stays drained after it was stopped and started, and after a restart of the master."""
    relay = memory["relay"]
    with undisturbed(mesh, f"{relay} stopped and started", talks=TALKS, concerned=[relay]):
        with mesh.lab.rebooted(relay):
            wait_until(planned_around(mesh, [relay], [relay]), PLANNED, "the master to know", every=0.5)
        mesh.lab.salt.await_minions([relay])
        await_links(mesh.lab.salt, mesh.name, set(mesh.members), deadline=2 * PLANNED)
        mesh.lab.salt.stop_master()
        mesh.lab.salt.start_master()
        mesh.lab.salt.await_minions(deadline=4 * PLANNED)
        mesh.lab.salt.salt_run("wgmesh.rebalance")
        mesh.settle(deadline=2 * PLANNED)
        assert relay not in {first for first, *_ in _relays(mesh).values()}


def test_undrained_relay_is_used_again(mesh: Mesh):
    """The relay is the first one of some leaf again after undrain, and no packet is lost."""
    relay = memory["relay"]
    with undisturbed(mesh, f"undrain {relay}", talks=TALKS):
        mesh.lab.salt.salt_run("wgmesh.undrain", relay)
        # The relay was down recently, and would be second choice of its leaves until its wait-to-restore time is over.
        mesh.lab.salt.salt_run("wgmesh.rebalance")
        used = lambda: relay in {first for first, *_ in _relays(mesh).values()}  # noqa: E731
        wait_until(used, 4 * PLANNED, f"{relay} to be used", every=0.5)
        mesh.settle(deadline=2 * PLANNED)
    assert mesh.faults() == []


@pytest.fixture(scope="module")
def two(mesh: Mesh) -> Iterator[Mesh]:
    """Yield the mesh with a second gateway, behind which the same address is reachable."""
    machine = mesh.lab.underlay["app2"]

    def second(raw: dict) -> None:
        rule = {"site": "nyc", "routes": [OFFICE_LAN]}
        rest = {name: value for name, value in raw["nodes"].items() if name != GATEWAY}
        raw["nodes"] = {GATEWAY: rule, "app2": rule, **rest}

    converge(mesh, edited(second), lambda: True)
    machine.run("ip", "address", "add", f"{PRINTER.address}/32", "dev", "lo")
    yield mesh
    machine.run("ip", "address", "del", f"{PRINTER.address}/32", "dev", "lo")
    # The policy would be refused while the node's facts have that network.
    mesh.lab.salt.salt("app2", "wgmesh.apply")
    converge(mesh, policy(), lambda: True)


def test_drained_gateway_hands_over_its_subnet(two: Mesh):
    """The subnet moves to the second gateway and back, and every request to the LAN host is answered."""
    underlay, salt = two.lab.underlay, two.lab.salt
    with Stream(underlay["web1"], [PRINTER.address]) as far, undisturbed(two, f"drain {GATEWAY}", talks=TALKS):
        result = salt.salt_run("wgmesh.drain", GATEWAY)
        assert result["safe_to_stop"] is True, result
        assert _active(two) == ["app2"]
        salt.salt_run("wgmesh.undrain", GATEWAY)
        wait_until(lambda: _active(two) == [GATEWAY], 2 * PLANNED, f"{GATEWAY} to have its subnet", every=0.5)
        two.settle(deadline=2 * PLANNED)
    assert [(loss.lost, loss.sent, loss.gaps) for loss in far.losses if loss.lost] == []


def _active(mesh: Mesh) -> list[str]:
    nodes = status(mesh.lab.salt, mesh.name)["nodes"]
    return [n for n, row in nodes.items() if OFFICE_LAN in row.get("subnets", {}).get("active", ())]
