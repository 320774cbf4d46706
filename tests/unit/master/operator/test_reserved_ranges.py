"""The operator sees which nodes keep an address in a reserved range."""

from __future__ import annotations

import pytest

from saltext_wgmesh.master.operator import show
from tests.unit.harness.fake_master import FakeMaster, reachable_by_commands


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> FakeMaster:
    master = FakeMaster()
    reachable_by_commands(master, monkeypatch)
    return master


def test_address_in_reserved_range_is_a_warning(world: FakeMaster) -> None:
    """``plan`` and ``converge`` show the warning until a rule gives the node the address."""
    world.run()
    (address,) = world.ledger.head("wg0").allocations.addresses["a"]
    # The test ledger keeps a reference to the published policy, so a new policy replaces it.
    world.policy = {"wg0": {**world.policy["wg0"], "reserved": [address]}}
    warning = (
        f"node a: it keeps {address}, which is in the reserved range {address}; "
        "write this or another one as its address, or take it out of reserved"
    )
    planned = show.plan(world.opts)["wg0"]
    assert (planned.warnings, planned.changes, planned.verdict.plain()) == ((warning,), {}, "holds")
    report = world.run()
    assert (report.warnings, report.published) == ((warning,), False)
    nodes = {**world.policy["wg0"]["nodes"], "a": {"address": address}}
    world.policy = {"wg0": {**world.policy["wg0"], "nodes": nodes}}
    assert show.plan(world.opts)["wg0"].warnings == ()
    assert world.run().warnings == ()
