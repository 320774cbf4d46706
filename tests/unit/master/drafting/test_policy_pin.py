"""Rollbacks to the policy of an earlier generation: by the operator, and by the master for its only relay."""

from __future__ import annotations

import pytest

from saltext_wgmesh.core import render
from saltext_wgmesh.core.errors import LedgerError, PolicyError
from saltext_wgmesh.master.drafting import policy_pin
from saltext_wgmesh.master.operator import show, status
from saltext_wgmesh.master.operator.rollback import pin_to_generation
from saltext_wgmesh.master.report import MeshReport
from tests.unit.harness.fake_master import mine, reachable_by_commands
from tests.unit.harness.guarded_master import ALL, GuardedMaster


@pytest.fixture
def fleet(monkeypatch, tmp_path) -> GuardedMaster:
    master = GuardedMaster(pki_dir=str(tmp_path))
    reachable_by_commands(master, monkeypatch)
    return master


# --- back to an earlier generation -------------------------------------------------------------------------


def mtu(fleet: GuardedMaster) -> int:
    return fleet.ledger.assignments("a")["wg0"]["mtu"]


def test_rollback_lasts_until_the_pillar_changes(fleet):
    """With the nodes of now; a policy that changes ends it, as does generation 0, and plan and status say so."""
    fleet.policy["wg0"]["mtu"] = 1400
    assert fleet.run().generation == 2
    fleet.mine.pop("e")
    assert fleet.run().generation == 3
    pin_to_generation(fleet.opts, 1, None)
    assert (fleet.run().generation, mtu(fleet)) == (4, 1420)
    assert fleet.run().published is False
    assert fleet.members() == ALL - {"e"}
    for told in (show.plan(fleet.opts), status.status(fleet.opts, live=False)):
        assert told["wg0"].policy_pin.generation == 1
        assert "generation=0" in told["wg0"].as_dict()["policy_pin"]["remedy"]
    pin_to_generation(fleet.opts, 0, "wg0")
    assert (fleet.run().generation, mtu(fleet)) == (5, 1400)
    pin_to_generation(fleet.opts, 1, "wg0")
    assert (fleet.run().generation, mtu(fleet)) == (6, 1420)
    fleet.policy["wg0"]["mtu"] = 1390
    assert (fleet.run().generation, mtu(fleet)) == (7, 1390)
    assert status.status(fleet.opts, live=False)["wg0"].policy_pin is None
    fleet.policy["wg0"]["mtu"] = 1400
    assert (fleet.run().generation, mtu(fleet)) == (8, 1400)


def test_rollback_works_despite_policy_errors(fleet):
    """The broken policy of that mesh is not even parsed."""
    fleet.policy["wg0"]["mtu"] = 1400
    fleet.run()
    fleet.policy["wg0"]["mtu"] = "large"
    with pytest.raises(PolicyError):
        fleet.run()
    pin_to_generation(fleet.opts, 1, "wg0")
    fleet.run()
    assert mtu(fleet) == 1420


def test_reordered_rules_end_a_rollback(fleet):
    """The first that matches counts."""
    pin_to_generation(fleet.opts, 1, "wg0")
    fleet.run()
    assert status.status(fleet.opts, live=False)["wg0"].policy_pin
    nodes = fleet.policy["wg0"]["nodes"]
    nodes["a"] = nodes.pop("a")
    fleet.run()
    assert status.status(fleet.opts, live=False)["wg0"].policy_pin is None


@pytest.mark.parametrize("generation", [3, 99, -1])
def test_rollback_to_unknown_generation_lists_known_ones(fleet, generation):
    """The same for an unknown mesh."""
    fleet.policy["wg0"]["mtu"] = 1400
    fleet.run()
    with pytest.raises(LedgerError, match=f"generation {generation} is not in the ledger; those are: 1, 2"):
        pin_to_generation(fleet.opts, generation, "wg0")
    with pytest.raises(LedgerError, match="mesh=<one of wg0>"):
        pin_to_generation(fleet.opts, 1, "wg7")


def test_rollback_to_fewer_nodes_is_held(fleet):
    """As any other loss of that size."""
    fleet.policy["wg0"]["nodes"] |= {"x": {}, "y": {}, "z": {}}
    fleet.mine |= {n: mine(n) for n in "xyz"}
    fleet.run()
    pin_to_generation(fleet.opts, 1, "wg0")
    report = fleet.run()
    assert report.held_loss.nodes == ("x", "y", "z")
    fleet.run(confirm=report.held_loss.digest)
    assert fleet.members() == ALL


# --- the only relay ----------------------------------------------------------------------------------------


@pytest.fixture
def hub(fleet: GuardedMaster) -> GuardedMaster:
    """The fleet with one relay, which listens elsewhere since a moment ago."""
    fleet.drop("r2")
    del fleet.mine["r2"]
    fleet.run()
    fleet.now += 1000
    fleet.policy["wg0"]["listen_port"] = 51999
    fleet.run()
    fleet.now += 10
    return fleet


def port(fleet: GuardedMaster) -> int:
    return fleet.ledger.assignments("r1")["wg0"]["interfaces"][0]["listen_port"]


def look(fleet: GuardedMaster, seconds: float) -> MeshReport:
    """The report of a run that many seconds later, with a hint at the relay."""
    fleet.now += seconds
    return fleet.run(hints="a")


def test_policy_that_costs_only_relay_is_rolled_back(hub):
    """Not at once: leaves behind NAT find it when they are told. Status and report say why until the pillar changes."""
    hub.unheard = {"r1"}
    assert (look(hub, 0).warnings, port(hub)) == ((), 51999)
    assert (look(hub, policy_pin.PATIENCE - 1).warnings, port(hub)) == ((), 51999)
    (why,) = look(hub, 1).warnings
    assert "r1, the only relay, went down" in why
    assert port(hub) == 51820
    told = status.status(hub.opts, live=False)["wg0"]
    assert "r1, the only relay" in told.policy_pin.why
    assert "r1, the only relay" in render.render_status({"wg0": told.as_dict()})
    assert (look(hub, 60).warnings, port(hub)) == ((), 51820)
    hub.unheard.clear()
    look(hub, 60)
    hub.policy["wg0"]["listen_port"] = 51900
    look(hub, 60)
    assert port(hub) == 51900
    assert status.status(hub.opts, live=False)["wg0"].policy_pin is None


def test_operator_overrules_the_automatic_rollback(hub):
    """After generation=0 the pillar's policy stays, even if it costs the relay once more."""
    hub.unheard = {"r1"}
    look(hub, 0)
    look(hub, policy_pin.PATIENCE)
    assert port(hub) == 51820
    pin_to_generation(hub.opts, 0, "wg0")
    hub.unheard.clear()
    look(hub, 60)
    assert port(hub) == 51999
    hub.unheard = {"r1"}
    look(hub, 10)
    assert (look(hub, policy_pin.PATIENCE).warnings, port(hub)) == ((), 51999)
    assert status.status(hub.opts, live=False)["wg0"].policy_pin is None


def test_recovered_relay_causes_no_rollback(hub):
    """It must be down without a break."""
    hub.unheard = {"r1"}
    look(hub, 0)
    hub.unheard.clear()
    assert (look(hub, policy_pin.PATIENCE).warnings, port(hub)) == ((), 51999)


def test_relay_lost_later_causes_no_rollback(hub):
    """Only within the window after the policy's first generation."""
    hub.unheard = {"r1"}
    look(hub, policy_pin.BLAME_WINDOW)
    assert (look(hub, policy_pin.PATIENCE).warnings, port(hub)) == ((), 51999)


def test_relay_lost_before_causes_no_rollback(fleet):
    """The policy can't be to blame."""
    fleet.drop("r2")
    del fleet.mine["r2"]
    fleet.run()
    fleet.unheard = {"r1"}
    look(fleet, 10)
    fleet.policy["wg0"]["listen_port"] = 51999
    look(fleet, 10)
    assert (look(fleet, policy_pin.PATIENCE).warnings, port(fleet)) == ((), 51999)


def test_policy_that_spares_the_relay_stays(fleet):
    """A policy that adds a node."""
    fleet.drop("r2")
    del fleet.mine["r2"]
    fleet.run()
    fleet.policy["wg0"]["nodes"]["x"] = {}
    fleet.mine["x"] = mine("x")
    fleet.run()
    fleet.unheard = {"r1"}
    look(fleet, 10)
    assert look(fleet, policy_pin.PATIENCE).warnings == ()
    assert "x" in fleet.members()


def test_mesh_with_two_relays_is_not_rolled_back(fleet):
    """The other relay carries on, and the rollout waits."""
    fleet.policy["wg0"]["listen_port"] = 51999
    fleet.run()
    fleet.unheard = {"r1"}
    look(fleet, 10)
    assert look(fleet, policy_pin.PATIENCE).warnings == ()


def test_policy_changed_since_is_tried(hub):
    """The new one may have fixed it."""
    hub.unheard = {"r1"}
    look(hub, 0)
    hub.policy["wg0"]["listen_port"] = 51900
    assert (look(hub, policy_pin.PATIENCE).warnings, port(hub)) == ((), 51900)
