"""The ledger of commit b0b7e5f is read without loss; the values that it must give stand here, written out.

``tests/unit/recorded_ledger/README.md`` says what is in it. The cache below the ledger is Salt's own.
"""

from __future__ import annotations

import pytest
import salt.cache
import salt.config

from saltext_wgmesh.core.inputs import facts_format
from saltext_wgmesh.core.keys.psk_rollover import Laggard
from saltext_wgmesh.core.liveness.mesh_health import Outage
from saltext_wgmesh.core.model.plan import AccessSocket
from saltext_wgmesh.core.model.policy import Endpoint
from saltext_wgmesh.core.model.view import Role, View
from saltext_wgmesh.core.proof import prove
from saltext_wgmesh.core.transition.gateway_move import GatewayMove, Stage
from saltext_wgmesh.core.transition.state import NO_TRANSITION, RoleChange
from saltext_wgmesh.master.records.acknowledgement import PendingPush
from saltext_wgmesh.master.records.assignment import AssignmentKind
from saltext_wgmesh.master.records.decisions import GuardRecord, HeldLoss
from saltext_wgmesh.master.records.ledger import Ledger
from saltext_wgmesh.master.records.published import is_retired, published
from tests.unit.harness.recorded import as_recorded, fill_cache, former_digest, recorded

T = 1_790_000_000.0
"""When the recorded history begins, in seconds since the epoch."""
MESHES = ["new0", "old0", "wg0", "wg1", "wg2", "wg3"]
ADDRESSES = {
    "new0": {},
    "old0": {"o1": ("10.9.0.10",), "y": ("10.9.0.82",)},
    "wg0": {
        "a": ("10.0.169.10", "fd00:10::e6e:c2c9:cbee:4c94"),
        "b": ("10.0.187.137", "fd00:10::59eb:42c9:6eac:57df"),
        "c": ("10.0.160.35", "fd00:10::6aae:67bc:c3ed:88ad"),
        "d": ("10.0.118.26", "fd00:10::3f7:5c34:cc4e:ae63"),
        "departed": ("10.0.181.81", "fd00:10::b7df:c1a5:f162:f0a"),
        "e": ("10.0.224.97", "fd00:10::968:2a35:d24b:b1b0"),
        "r1": ("10.0.215.26", "fd00:10::1153:a82f:9546:c12d"),
        "r2": ("10.0.201.135", "fd00:10::3309:efe2:a568:c765"),
        "r3": ("10.0.131.78", "fd00:10::16ce:9591:f71e:6975"),
        "r4": ("10.0.109.51", "fd00:10::c202:fbd:a983:ead4"),
        "r5": ("10.0.227.204", "fd00:10::c6bc:2722:6042:f364"),
    },
    "wg1": {
        "gw": ("10.1.0.141",),
        "q1": ("10.1.0.1",),
        "q2": ("10.1.0.14",),
        "q3": ("10.1.0.114",),
        "w": ("10.1.0.166",),
        "x": ("10.1.0.203",),
        "z": ("10.1.0.218",),
    },
    "wg2": {
        "a": ("10.2.0.27",),
        "k1": ("10.2.0.138",),
        "k2": ("10.2.0.241",),
        "k3": ("10.2.0.183",),
        "k4": ("10.2.0.48",),
        "k5": ("10.2.0.206",),
        "p1": ("10.2.0.247",),
    },
    "wg3": {
        "m1": ("10.3.0.101",),
        "m2": ("10.3.0.30",),
        "m3": ("10.3.0.198",),
        "m4": ("10.3.0.246",),
        "n1": ("10.3.0.9",),
        "n2": ("10.3.0.99",),
    },
}
"""Those of nodes that left (departed, r4, z, k5, and all of old0) are reserved."""
NUMBERS = {
    "new0": {},
    "old0": {"o1": 1},
    "wg0": {"r1": 1, "r2": 2, "r3": 3, "r4": 4, "r5": 5},
    "wg1": {"q1": 1, "q2": 2, "q3": 3},
    "wg2": {"p1": 1},
    "wg3": {"m1": 1, "m2": 2, "m3": 3, "m4": 4},
}
ASSIGNED = {
    "new0": {},
    "old0": {"y": ("o1",)},
    "wg0": {**dict.fromkeys("abcde", ("r1", "r3")), "departed": ("r2", "r1")},
    "wg1": {**dict.fromkeys(("gw", "w", "x"), ("q1", "q3")), "z": ("q2", "q1")},
    "wg2": dict.fromkeys(("a", "k1", "k2", "k3", "k4", "k5"), ("p1",)),
    "wg3": {"m3": ("m2", "m1"), "n1": ("m1", "m2"), "n2": ("m2", "m1")},
}
"""Leaf → its relays, the preferred one first."""
VIEWS = 131
"""How many views are in the nodes' records."""
NEW_DIGESTS = {
    ("c", "wg0"): "7d67dc19acdad6d2d2605310509a5974dc6cafe821ec7135243a15e4db74f7e2",
    ("r1", "wg0"): "4402da8522f0ff511956e181d5ced4a1badb3c99fc16f74d5f20753baf8f8c66",
    ("x", "wg1"): "a90804f14b511b802c0d4d147087a3284ed0af669891fe932cc58e71d949c798",
    ("p1", "wg2"): "bc0700ea5f41fa438cc0aa95b1cb3ae0ad503cc000f646ff12ebde25a9f2ea0a",
    ("m3", "wg3"): "fe838f6274c21be7f246551a647298a7d80f19a3682b57432801d3234b4a1f9a",
}
"""Node and mesh → the digest of its migrated view. c is activated, r1 has PSKs, m3 changes its role."""


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """The recorded ledger, in a cache of Salt's default kind. Tests only read it."""
    folder = tmp_path_factory.mktemp("cache")
    cache = salt.cache.Cache({**salt.config.DEFAULT_MASTER_OPTS, "cachedir": str(folder)})
    fill_cache(cache)
    return Ledger(cache)


def reason(mesh: str) -> str:
    return f"no entry of wgmesh:{mesh}:nodes matches this id"


# --- allocations and generations --------------------------------------------------------------------------


def test_meshes_and_nodes_are_those_recorded(ledger):
    """Nodes whose Salt key was deleted have no record; unborn never had one."""
    assert ledger.meshes() == MESHES
    leaves = [*"abcde", "gw", *(f"k{i}" for i in range(1, 5))]
    relays = [*(f"m{i}" for i in range(1, 5)), "n1", "n2", "o1", "p1", *(f"q{i}" for i in range(1, 4))]
    assert ledger.nodes() == [*leaves, *relays, *(f"r{i}" for i in range(1, 6)), "stranger", *"wxyz"]


@pytest.mark.parametrize("mesh", MESHES)
def test_allocations_are_kept(ledger, mesh):
    """Also those reserved for nodes and relays that left."""
    register = ledger.head(mesh).allocations
    assert register.addresses == ADDRESSES[mesh]
    assert register.relay_numbers == NUMBERS[mesh]
    assert register.relays == ASSIGNED[mesh]


def test_generations_stay_current_and_kept(ledger):
    """The last ten, and the last one of each policy before them."""
    assert {mesh: ledger.generations(mesh) for mesh in MESHES} == {
        "new0": [1],
        "old0": [1, 2],
        "wg0": [1, *range(5, 15)],
        "wg1": [1, 2, 3, 4, 5, 6],
        "wg2": [1, 2],
        "wg3": [1, 2, 3, 4],
    }
    assert {mesh: ledger.head(mesh).generation for mesh in MESHES} == dict(
        zip(MESHES, (1, 2, 14, 6, 2, 4), strict=True)
    )
    assert {mesh: ledger.head(mesh).published_at - T for mesh in MESHES} == dict(
        zip(MESHES, (10, 50, 680, 420, 430, 680), strict=True)
    )


@pytest.mark.parametrize("mesh", MESHES)
def test_published_plan_has_the_recorded_views(ledger, mesh):
    """Made from its recorded inputs, the plan is the one that nodes were given, and it holds its proof.

    In the form of schema 3 its views have the recorded digests; those of wg0 have PSKs as well, which no plan from
    inputs alone has.
    """
    found = published(ledger, mesh)
    assert found.generation == ledger.head(mesh).generation
    assert not prove.prove(found.plan)
    given = {node: digest for node, digest in ledger.head(mesh).digests.items() if ":" not in digest}
    assert given.keys() == found.plan.views.keys()
    if mesh != "wg0":
        views = {n: as_recorded(view) for n, view in found.plan.views.items()}
        assert {n: former_digest(view) for n, view in views.items()} == given
        assert {n: View.from_dict(ledger.assignments(n)[mesh]) for n in given} == views


def test_every_recorded_view_is_the_same(ledger):
    """Also those of former generations; in the form of schema 3 each has the digest that was recorded."""
    seen = 0
    for node, record in recorded("node").items():
        for mesh, entries in record["meshes"].items():
            for digest in [entry["digest"] for entry in entries if "interfaces" in entry]:
                view = ledger.view_with_digest(node, mesh, digest)
                assert view is not None
                assert former_digest(view) == digest
                seen += 1
    assert seen == VIEWS


def test_digest_of_a_migrated_view_is_new(ledger):
    """It covers the plain form, whose keys are new. The entry keeps the digest that its node acknowledged."""
    for (node, mesh), digest in NEW_DIGESTS.items():
        entry = ledger.assignments(node)[mesh]
        view = View.from_dict(entry)
        assert view.digest() == digest
        assert entry["digest"] == former_digest(view) == ledger.head(mesh).digests[node] != digest


def test_every_kept_generation_can_be_planned(ledger):
    """So a mesh can still be rolled back to each."""
    for mesh in MESHES:
        for number in ledger.generations(mesh):
            plan = ledger.generation(mesh, number).inputs.plan()
            assert plan.members.keys() <= ADDRESSES[mesh].keys()
    assert ledger.generation("wg0", 14).inputs.activated_keys == {"c"}
    assert ledger.raw_policy("wg1", 3)["mtu"] == 1400
    assert ledger.generation("wg1", 3).inputs.policy.mtu == 1400
    assert ledger.generation("wg1", 6).inputs.health == ledger.health("wg1")


def test_every_generation_keeps_its_inputs(ledger):
    """Those that are values of the policy, the nodes and the operator, of every recorded generation."""
    for key, raw in recorded("generation").items():
        mesh, _, number = key.rpartition(".")
        generation = ledger.generation(mesh, int(number))
        inputs, register = generation.inputs, generation.inputs.allocations
        assert (inputs.raw_policy, generation.reasons) == (raw["policy"], raw["reasons"])
        assert {n: facts_format.facts_as_dict(facts) for n, facts in inputs.facts.items()} == raw["facts"]
        assert {n: list(found) for n, found in register.addresses.items()} == raw["register"]["addresses"]
        assert {n: list(found) for n, found in register.relays.items()} == raw["register"]["homes"]
        assert register.relay_numbers == raw["register"]["numbers"]
        assert inputs.drained == set(raw.get("drained", ()))
        assert inputs.activated_keys == set(raw.get("turns", ()))
        assert (generation.published_at, generation.is_retired) == (raw["published_at"], raw.get("retired", False))


def test_retired_mesh_stays_retired(ledger):
    assert [mesh for mesh in MESHES if is_retired(ledger, mesh)] == ["old0"]


# --- what is in progress ----------------------------------------------------------------------------------


def test_drained_relay_stays_drained(ledger):
    assert all(ledger.head(mesh).drained == {"r2"} for mesh in MESHES)
    assert ledger.generation("wg0", 14).inputs.drained == {"r2", "r5"}


def test_transition_goes_on_where_it_was(ledger):
    """wg0: two leaves are about to leave r5. wg3: a role, a port, an address and a subnet are on their way."""
    found = {mesh: ledger.head(mesh).transition for mesh in MESHES}
    assert [mesh for mesh in MESHES if found[mesh] != NO_TRANSITION] == ["wg0", "wg3"]
    assert found["wg0"].previous_relays == {"c": ("r5",), "d": ("r5",)}
    before = AccessSocket(listen_port=55000, endpoint=None, interface="wg3")
    relay = AccessSocket(listen_port=55000, endpoint=Endpoint(host="203.0.113.53", port=55000), interface="wg3")
    assert found["wg3"].previous_sockets == {"n1": before, "n2": before}
    assert found["wg3"].dual_addresses == {"n2": ("10.3.0.99", "10.3.0.161")}
    change = RoleChange(socket=relay, relays=("m2", "m1"), trunk_linked_relays=("m2",))
    assert found["wg3"].role_changes == {"m3": change}
    move = GatewayMove(old="n1", new="n2", stage=Stage.FIRST_RELAY)
    assert found["wg3"].gateway_moves == {"192.168.7.0/24": move}


def test_rotation_keeps_requests_activations_and_backoffs(ledger):
    """c may run its next key, d is to create one, the activation of e was withdrawn."""
    rotation = ledger.head("wg0").rotation
    assert rotation.requested == {"d": T + 650}
    assert rotation.activated == {"c": T + 640}
    assert rotation.backed_off_until == {"e": T + 900}
    assert (rotation.period, rotation.checked_at) == (90 * 86400, T + 10)


def test_facts_keep_both_keys_of_a_rotation(ledger):
    facts = ledger.head("wg0").facts
    assert facts["c"].public_key == "Ln0sA6lQeuJl7PW1NWiFpTOTogKdJBOUmXJloaJa78Y="
    assert facts["c"].next_key == "pvGuEtnrWuXklSVf9oBUR7LApJRjPXX6ICDLXETpkwg="
    assert [node for node, one in facts.items() if one.next_key] == ["c", "e"]
    assert (facts["a"].salt_key, facts["a"].underlay, facts["a"].ipv6) == ("key of a", ("192.0.2.203",), True)


def test_psk_rollover_keeps_epochs_and_laggards(ledger):
    """b has the first secret and did not take the second; a was notified of the third."""
    rollover = ledger.head("wg0").psk_rollover
    assert rollover.epochs == {1: "a5da70d1a622ee73", 2: "ab654f9d6ab44507", 3: "0df41a5626e94292"}
    assert rollover.laggards == {
        "a": Laggard(epoch=2, notified=True, since=T + 680),
        "b": Laggard(epoch=1, notified=False, since=T + 160),
    }
    assert all(not ledger.head(mesh).psk_rollover.secrets for mesh in MESHES if mesh != "wg0")


def test_health_keeps_outages_with_their_times(ledger):
    """q3 is down, q2 recovers from its second failure, one link is down, gw did not answer."""
    health = ledger.health("wg1")
    assert (health.down_nodes, health.recovering) == ({"q3"}, {"q2"})
    assert (health.down_links, health.unresponsive) == ({("q1", "x")}, {"gw"})
    assert health.nodes == {
        "q2": Outage(since=T + 310, reporters=("q1", "q3"), up_since=T + 320, flaps=2),
        "q3": Outage(since=T + 410, reporters=("q1", "q2", "w"), flaps=1),
    }
    assert health.links == {("q1", "x"): Outage(since=T + 410, reporters=("q1", "x"), flaps=1)}


# --- decisions of the operator ----------------------------------------------------------------------------


def test_rolled_back_mesh_stays_at_its_policy(ledger):
    pin = ledger.pin("wg1")
    assert pin is not None
    assert pin.is_rolled_back
    assert (pin.generation, pin.why) == (2, "")
    assert pin.policy == ledger.raw_policy("wg1", 2)
    assert pin.policy["nodes"]["q1"] == {"role": "relay", "endpoint": "203.0.113.21", "address": "10.1.0.1"}
    assert pin.replaces == "9de6ec8094f5bcdab088412a2ffb6c4eb5b73619373e3580dd8fbfaaec0a7676"
    assert [mesh for mesh in MESHES if ledger.pin(mesh)] == ["wg1"]


def test_held_loss_stays_held_under_its_digest(ledger):
    """The operator may have the digest already. The remedy keeps its former words until the next run."""
    assert ledger.guard("wg2") == GuardRecord(
        held=HeldLoss(
            digest="jfkijdghojhp",
            nodes=("k1", "k2"),
            links=(),
            why="this would drop 2 of 6 nodes (2 matched by no entry of wgmesh:wg2:nodes), more than prune_guard: 20 %;"
            " until then the mesh goes on without it",
            remedy="put back what is missing, or have it dropped: salt-run wgmesh.converge confirm=jfkijdghojhp",
        )
    )
    assert [mesh for mesh in MESHES if ledger.guard(mesh).held] == ["wg2"]


def test_approved_loss_stays_approved(ledger):
    loss = ledger.guard("wg0").approved_loss
    assert (loss.nodes, loss.pairs) == ({"r5"}, frozenset())
    assert [mesh for mesh in MESHES if ledger.guard(mesh).approved_loss] == ["wg0"]


# --- nodes ------------------------------------------------------------------------------------------------


def test_assignments_keep_view_reason_and_flags(ledger):
    a = ledger.assignments("a")
    assert {mesh: entry["generation"] for mesh, entry in a.items()} == dict(
        zip(MESHES, (1, 2, 14, 1, 1, 1), strict=True)
    )
    # Views.
    view = View.from_dict(a["wg0"])
    assert (view.node, view.role) == ("a", Role.LEAF)
    assert view.addresses == ("10.0.169.10", "fd00:10::e6e:c2c9:cbee:4c94")
    assert [i.name for i in view.interfaces] == ["wg0", "wg0-u1", "wg0-u3"]
    assert all(peer.psk_ids for i in view.interfaces for peer in i.peers)
    assert View.from_dict(ledger.assignments("c")["wg0"]).activate_key == "pvGuEtnrWuXklSVf9oBUR7LApJRjPXX6ICDLXETpkwg="
    # Unplaced, and excluded.
    assert a["new0"]["pending"] is True
    assert a["new0"]["reason"] == "none of its relays has published facts: unborn; apply the formula there"
    assert (a["wg1"]["reason"], "pending" in a["wg1"], "removed" in a["wg1"]) == (reason("wg1"), False, False)
    # Leave.
    assert (a["old0"]["reason"], a["old0"]["removed"]) == ("the policy has the mesh old0 no more", True)
    assert (ledger.assignments("z")["wg1"]["reason"], ledger.assignments("z")["wg1"]["removed"]) == (
        reason("wg1"),
        True,
    )
    assert ledger.assignments("r4")["wg0"]["removed"] is True
    assert (ledger.assignments("departed"), ledger.assignments("k5")) == ({}, {})


def test_kinds_without_view_are_kept(ledger):
    """A digest of schema 1 does not tell unplaced from excluded: both keep what they run until the first run."""
    for mesh in MESHES:
        head = ledger.head(mesh)
        for node, digest in head.digests.items():
            kind = head.without_view.get(node, AssignmentKind.VIEW)
            # The record of a node whose key was deleted is gone, and its digest with it.
            entry = ledger.assignments(node)[mesh]
            is_view, is_leave = "interfaces" in entry, "removed" in entry
            assert (kind is AssignmentKind.VIEW, kind is AssignmentKind.LEAVE) == (is_view, is_leave)
            assert entry["digest"] == digest
    assert ledger.head("new0").without_view["a"] is AssignmentKind.EXCLUDED
    assert ledger.head("wg0").without_view["r4"] is AssignmentKind.LEAVE


def test_view_that_a_node_runs_is_found(ledger):
    """x rolled back the present view of wg1, and runs the one before."""
    acknowledged = ledger.ack("x").digests["wg1"]
    runs = ledger.view_with_digest("x", "wg1", acknowledged)
    assert runs is not None
    assert (runs.mtu, former_digest(runs)) == (1400, acknowledged)
    entries = recorded("node")["x"]["meshes"]["wg1"]
    assert [entry["generation"] for entry in entries if entry["digest"] == acknowledged][-1] == 5
    assert acknowledged != ledger.head("wg1").digests["x"]


def test_every_recorded_acknowledgement_is_kept(ledger):
    """Of all nodes: what each acknowledged, and when."""
    for node, raw in recorded("acknowledged").items():
        ack = ledger.ack(node)
        assert (ack.digests, ack.at) == (raw["digests"], raw["at"])
        assert (ack.pending is not None) == ("silent" in raw)


def test_acknowledgement_without_pending_push_is_kept(ledger):
    ack = ledger.ack("r1")
    assert (ack.at, ack.pending) == (T + 680, None)
    assert ack.digests["wg0"] == ledger.head("wg0").digests["r1"]
    assert ack.digests["old0"] == "removed: the policy has the mesh old0 no more"


def test_unanswered_pushes_keep_jobs_and_tries(ledger):
    """a left one unanswered, b its fourth."""
    a, b = (ledger.ack(node).pending for node in "ab")
    assert a is not None
    assert b is not None
    assert a == PendingPush(digests=a.digests, job="20260921120036", tries=1, retry_at=T + 740)
    assert a.digests["wg0"] == ledger.head("wg0").digests["a"]
    assert b == PendingPush(digests=b.digests, job="20260921120030", tries=4, retry_at=T + 940)
    assert "wg0" not in ledger.ack("b").digests
    assert (ledger.ack("a").awaits_answer, ledger.ack("a").has_given_up) == (True, False)
    assert (ledger.ack("b").awaits_answer, ledger.ack("b").has_given_up) == (True, True)


def test_error_of_a_node_is_kept(ledger):
    pending = ledger.ack("p1").pending
    assert pending is not None
    assert pending == PendingPush(
        digests=pending.digests, error="no space left on device", tries=2, retry_at=T + 720, job="", rolled_back={}
    )


def test_rolled_back_view_still_blocks_the_push(ledger):
    """Until the first run publishes the view with its new digest: then x is asked once more."""
    ack, present = ledger.ack("x"), ledger.head("wg1").digests["x"]
    assert ack.pending is not None
    assert ack.pending.rolled_back == {"wg1": "q2 is not heard any more"}
    assert ack.pending.error == "q2 is not heard any more"
    assert ack.pending.digests["wg1"] == present
    assert ack.rolled_back({"wg1": present}) == {"wg1": "q2 is not heard any more"}
    view = ledger.view_with_digest("x", "wg1", present)
    assert view is not None
    assert ack.rolled_back({"wg1": view.digest()}) == {}


def test_ledger_with_work_left_is_not_idle(ledger):
    assert ledger.idle_fingerprint() == ""
