"""Records of schema 1 are read as what they were, and the first run after an upgrade publishes what was published.

``test_recorded_ledger.py`` has the values that a whole ledger must give.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from saltext_wgmesh.core.keys import psk
from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState, LinkStatus
from saltext_wgmesh.core.model.view_migration import migrate_view
from saltext_wgmesh.core.transition.gateway_move import Stage
from saltext_wgmesh.master.records import banks
from saltext_wgmesh.master.records.acknowledgement import Ack, PendingPush
from saltext_wgmesh.master.records.assignment import AssignmentKind
from saltext_wgmesh.master.records.decisions import Pin
from saltext_wgmesh.master.records.ledger import Ledger
from saltext_wgmesh.master.records.psk_secrets import PskSecrets, Secret
from saltext_wgmesh.master.records.published import is_retired, published
from tests.unit.harness.fake_master import FakeMaster
from tests.unit.harness.memory_cache import MemoryCache
from tests.unit.harness.recorded import (
    INPUTS,
    NEXT,
    SECRET_NUMBERS,
    fill_cache,
    former_digest,
    recorded,
    throwaway_secret,
)

DOWN_LINKS = {frozenset({"q3", other}) for other in ("q1", "q2", "w", "gw")} | {frozenset({"q1", "x"})}
"""Links of the recorded nodes that are down."""


class UpgradedMaster(FakeMaster):
    """A master of this version on the recorded ledger, ten seconds after its last run; nodes hear what they heard."""

    def __init__(self, pki_dir: Path) -> None:
        super().__init__(pki_dir=str(pki_dir))
        fill_cache(self.cache)
        inputs = recorded(INPUTS)
        self.policy, self.mine, self.deleted = inputs["policy"], inputs["mine"], set(inputs["deleted"])
        self.now, self.off = inputs["now"] + 10, {"a", "b"}
        for number in SECRET_NUMBERS:
            PskSecrets.of(self.opts, "wg0").save(Secret(text=throwaway_secret(number)))

    def links(self, nodes: list[str]) -> dict[str, Any]:
        """Answers of all but b and gw; a answers, though a push to it was unanswered."""
        return {node: self._reports(node) for node in nodes if node not in ("b", "gw")}

    def _reports(self, node: str) -> dict[str, Any]:
        found = {}
        for mesh in self.ledger.meshes():
            view = published(self.ledger, mesh).plan.views.get(node)
            peers = [(i.name, p.node) for i in view.interfaces for p in i.peers] if view else []
            links = {other: _link(node, other, interface) for interface, other in peers}
            found[mesh] = LinkReport(mesh=mesh, from_watcher=True, links=links)
        return {mesh: report.as_dict() for mesh, report in found.items() if report.links}


def _link(node: str, other: str, interface: str) -> LinkStatus:
    state = LinkState.DOWN if frozenset({node, other}) in DOWN_LINKS else LinkState.UP
    return LinkStatus(neighbour=other, interface=interface, state=state, since=1.0)


@pytest.fixture
def master(tmp_path: Path) -> UpgradedMaster:
    return UpgradedMaster(tmp_path)


def old_ledger(bank: str, key: str, record: dict[str, Any]) -> Ledger:
    """A ledger that has one record of schema 1."""
    cache = MemoryCache()
    cache.store(bank, key, {**record, "schema": 1})
    return Ledger(cache)  # type: ignore[arg-type]


# --- the first run -------------------------------------------------------------------------------------


def test_first_run_plans_as_before_the_upgrade(master):
    """Each view is the one that the recorded version planned next, transitions and rollovers included.

    So nothing that a plan depends on is lost. All digests differ for once, since they cover the plain form.
    """
    heads = {mesh: master.ledger.head(mesh) for mesh in master.ledger.meshes()}
    reports = master.run_all()
    for mesh, digests in recorded(NEXT).items():
        views, head = published(master.ledger, mesh).plan.views, master.ledger.head(mesh)
        assert {node: former_digest(view) for node, view in views.items()} == digests
        assert head.allocations.relay_numbers == heads[mesh].allocations.relay_numbers
        assert head.allocations.addresses == heads[mesh].allocations.addresses
        assert reports[mesh].published
        assert views.keys() <= set(reports[mesh].changed)


def test_first_run_loses_no_secret(master):
    """The names of the secrets still fit the files of the former version, so PSKs stay as they are."""
    before = master.ledger.head("wg0").psk_rollover
    master.run_all()
    after = master.ledger.head("wg0").psk_rollover
    assert after.secrets == before.secrets == PskSecrets.of(master.opts, "wg0").names()
    assert (after.laggards["a"], after.laggards["b"].epoch) == (before.laggards["a"], 1)
    name = throwaway_secret(SECRET_NUMBERS[-1])
    assert str(psk.psk_id(name)) == after.secret


def test_first_run_keeps_drained_and_retired(master):
    """What the operator drained and retired stays so."""
    master.run_all()
    assert all(master.ledger.head(mesh).drained == {"r2"} for mesh in master.ledger.meshes())
    assert [mesh for mesh in master.ledger.meshes() if is_retired(master.ledger, mesh)] == ["old0"]


def test_scheduled_run_after_an_upgrade_plans(master):
    """The fingerprint of the last idle run does not count, whatever it is."""
    master.cache.banks[banks.RUNS]["last"]["basis"] = "f"
    assert master.ledger.idle_fingerprint() == ""
    assert master.run_all(interactive=False)


def test_migrated_records_are_written_in_new_schema(master):
    """Once a run has published; and they read as before then."""
    master.run_all()
    for bank in (banks.HEADS, banks.CURRENT, banks.NODES, banks.RUNS):
        assert {record["schema"] for record in master.cache.banks[bank].values()} == {2}


def test_pinned_and_held_meshes_stay_so(master):
    """The operator's decisions outlive the upgrade, by the digests and fingerprints that they had."""
    pin, held = master.ledger.pin("wg1"), master.ledger.guard("wg2").held
    reports = master.run_all()
    assert pin
    assert master.ledger.pin("wg1") == pin
    # The pillar's policy has another MTU.
    assert master.ledger.raw_policy("wg1", master.ledger.head("wg1").generation) == pin.policy
    assert master.policy["wg1"]["mtu"] == 1400
    assert "mtu" not in pin.policy
    assert held
    for found in (reports["wg2"].held_loss, master.ledger.guard("wg2").held):
        assert found
        assert (found.digest, found.nodes) == (held.digest, held.nodes)
    assert reports["wg0"].held_loss is None


# --- single records ------------------------------------------------------------------------------------


def test_old_head_keeps_every_part_of_a_transition():
    """Also a gateway move, a role change, a moved socket and two addresses."""
    kept = {
        "homes": {"a": ["r1"]},
        "idle": {"a": ["r2"]},
        "pairs": [["a", "b"]],
        "places": {"r3": [51820, "wg0", ["203.0.113.3", 51820]]},
        "addresses": {"b": ["10.0.0.1", "10.0.0.2"]},
        "moves": {"172.16.0.0/24": ["g1", "g2", "most"]},
        "fresh": ["r4"],
        "crossing": {"r5": [[51820, "wg0", None], ["r1", "r2"], ["r3"], ["r1"]]},
    }
    raw = {
        "generation": 0,
        "digests": {"a": "0" * 64, "x": "reason: no place", "y": "removed: it left"},
        "register": {"addresses": {"a": ["10.0.0.1"]}, "numbers": {"r1": 1}, "homes": {"a": ["r1"]}},
        "facts": {},
        "published_at": 5.0,
        "kept": kept,
        "rotation": {"wanted": {"a": 1.0}, "turns": {"b": 2.0}, "rests": {"c": 3.0}, "period": 60, "looked_at": 4.0},
    }
    head = old_ledger(banks.HEADS, "wg0", raw).head("wg0")
    transition, rotation = head.transition, head.rotation
    assert head.without_view == {"x": AssignmentKind.EXCLUDED, "y": AssignmentKind.LEAVE}
    assert (dict(transition.previous_relays), dict(transition.unrouted_relays)) == ({"a": ("r1",)}, {"a": ("r2",)})
    assert transition.previous_direct_links == {("a", "b")}
    assert (transition.previous_sockets["r3"].interface, str(transition.previous_sockets["r3"].endpoint)) == (
        "wg0",
        "203.0.113.3:51820",
    )
    assert transition.dual_addresses["b"] == ("10.0.0.1", "10.0.0.2")
    assert transition.gateway_moves["172.16.0.0/24"].stage is Stage.MOST_RELAYS
    assert transition.unproven_relays == {"r4"}
    assert transition.role_changes["r5"].relays == ("r1", "r2")
    assert (rotation.requested, rotation.activated, rotation.backed_off_until) == ({"a": 1.0}, {"b": 2.0}, {"c": 3.0})
    assert (rotation.period, rotation.checked_at) == (60, 4.0)


def test_old_acknowledgement_keeps_its_pending_push():
    """A rollback still blocks the push, and a job can still be answered."""
    silent = {"digests": {"wg0": "d2"}, "tries": 2, "again_at": 70.0, "error": "e", "taken_back": {"wg0": "why"}}
    raw = {"digests": {"wg0": "d1"}, "at": 10.0, "silent": silent}
    pending = PendingPush(digests={"wg0": "d2"}, tries=2, retry_at=70.0, error="e", rolled_back={"wg0": "why"})
    assert old_ledger(banks.ACKS, "a", raw).ack("a") == Ack(digests={"wg0": "d1"}, at=10.0, pending=pending)
    unanswered = {"digests": {"wg0": "d2"}, "tries": 1, "again_at": 70.0, "job": "7"}
    ack = old_ledger(banks.ACKS, "a", {**raw, "silent": unanswered}).ack("a")
    assert ack.pending == PendingPush(digests={"wg0": "d2"}, tries=1, retry_at=70.0, job="7")
    assert old_ledger(banks.ACKS, "a", {"digests": {}, "at": 10.0}).ack("a") == Ack(at=10.0, digests={})


def test_old_pin_of_an_overruled_rollback_stays():
    """It has no policy: the pillar's stays, whatever happens to the relay."""
    pin = old_ledger(banks.PINS, "wg0", {"instead_of": "f"}).pin("wg0")
    assert pin == Pin(replaces="f")
    assert not pin.is_rolled_back


def test_old_approved_loss_stays_approved():
    """Nodes and direct links that may go."""
    raw = {"held": {}, "passed": {"nodes": ["a"], "pairs": [["b", "c"]]}}
    guard = old_ledger(banks.GUARD, "wg0", raw).guard("wg0")
    assert (guard.held, guard.approved_loss.nodes, guard.approved_loss.pairs) == (None, {"a"}, {("b", "c")})


@pytest.mark.parametrize("raw", [None, [], "text", {}, {"schema": 2}, {"schema": 99, "drained": []}])
def test_anything_but_an_old_view_passes_unchanged(raw):
    """``View.from_dict`` is what judges it."""
    assert migrate_view(raw) is raw
