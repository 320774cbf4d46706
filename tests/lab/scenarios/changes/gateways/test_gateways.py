"""A subnet moves to another gateway under traffic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ....demo.run import PRINTER
from ....demo.topology import GATEWAY, OFFICE_LAN
from ....mesh import Mesh
from ....overlay import Stream
from ....planned import status
from ..edits import changed, edited, policy

NEXT = "app2"


def _gateways(*order: str):
    def edit(mesh: dict) -> None:
        rule = {"site": "nyc", "routes": [OFFICE_LAN]}
        rest = {name: value for name, value in mesh["nodes"].items() if name != GATEWAY}
        mesh["nodes"] = {**dict.fromkeys(order, rule), **rest}

    return edit


def _active(mesh: Mesh) -> list[str]:
    nodes = status(mesh.lab.salt, mesh.name)["nodes"]
    return [n for n, row in nodes.items() if OFFICE_LAN in row.get("subnets", {}).get("active", ())]


@pytest.fixture(scope="module")
def two(mesh: Mesh) -> Iterator[Mesh]:
    """Yield the mesh, with a second machine that has the LAN host's address."""
    # The gateway to the LAN host changes here, so that its path is not compared with the plan.
    yield replace(mesh, lan=None)
    _forget(mesh)


def _forget(mesh: Mesh) -> None:
    """Remove the address from the second machine, and have it report that to the master."""
    mesh.lab.underlay[NEXT].run("ip", "address", "del", f"{PRINTER.address}/32", "dev", "lo", check=False)
    mesh.lab.salt.salt(NEXT, "state.apply", "wgmesh")


def _used(mesh: Mesh, name: str, *order: str) -> None:
    """Change the order of the gateways, or restore the policy, while two sites ping the LAN host without loss."""
    # Direct links without routes belong to many pairs. Through relays, all of them are more than two cores can forward.
    leaves = ("web1", "app1", "laptop", GATEWAY)
    machines = [mesh.lab.underlay[n] for n in ("web1", "app1")]
    with Stream(machines[0], [PRINTER.address]) as far, Stream(machines[1], [PRINTER.address]) as near:
        wanted = edited(_gateways(*order)) if order else policy()
        changed(mesh, name, wanted, lambda: _active(mesh) == [order[0] if order else GATEWAY], leaves=leaves)
    losses = [*far.losses, *near.losses]
    for loss in losses:
        print(f"  {loss.source} to {loss.address}: {loss.lost} of {loss.sent} lost: {loss.gaps}")
    assert not [loss for loss in losses if loss.lost]


def test_second_gateway_is_added(two: Mesh):
    """A second gateway that the policy names after the first takes no traffic."""
    _used(two, "gateway added", GATEWAY, NEXT)
    two.lab.underlay[NEXT].run("ip", "address", "add", f"{PRINTER.address}/32", "dev", "lo")


def test_second_gateway_becomes_first(two: Mesh):
    """The subnet moves to the gateway that the policy now names first."""
    _used(two, "gateway order changed", NEXT, GATEWAY)


def test_first_gateway_is_first_again(two: Mesh):
    """The subnet moves back when the old order is restored."""
    _used(two, "gateway order restored", GATEWAY, NEXT)


def test_second_gateway_is_removed(two: Mesh):
    """The node reports that it no longer has the network. Before that, a policy without it would be refused."""
    _forget(two)
    _used(two, "gateway removed")
