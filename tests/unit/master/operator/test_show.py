"""What the runner says of plans: verdicts that claim nothing, ports, and exit statuses."""

from __future__ import annotations

import pytest

from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.master.operator import drain, plain, rollback, show
from saltext_wgmesh.master.operator.converge_result import PIN_ENDED, ConvergeResult
from saltext_wgmesh.master.operator.proof_verdict import HOLDS, NOTHING_TO_PROVE, MeshVerdicts, ProofVerdict
from tests.unit.harness.fake_master import FakeMaster, reachable_by_commands


@pytest.fixture
def master(monkeypatch: pytest.MonkeyPatch) -> FakeMaster:
    """A relay and two leaves that run what is published."""
    made = FakeMaster()
    made.run()
    reachable_by_commands(made, monkeypatch)
    return made


@pytest.mark.parametrize(
    ("nodes", "verdict"), [((), NOTHING_TO_PROVE), (("r1",), NOTHING_TO_PROVE), (("r1", "a"), HOLDS)]
)
def test_proof_holds_for_pairs_alone(monkeypatch, nodes, verdict):
    """A mesh in which no node must reach another has proved nothing."""
    made = FakeMaster()
    made.mine = {node: facts for node, facts in made.mine.items() if node in nodes}
    reachable_by_commands(made, monkeypatch)
    assert plain.with_exit_status(show.proof(made.opts)) == {"wg0": {"next": verdict}}
    assert show.plan(made.opts)["wg0"].as_dict()["proof"] == verdict


def test_failed_proof_has_exit_status():
    """salt-run exits with 1, whichever of the two plans has the problem."""
    holds, fails = ProofVerdict(problems=(), members=2), ProofVerdict(problems=("a does not reach b",), members=2)
    published, following = MeshVerdicts(next=holds, published=fails), MeshVerdicts(next=fails)
    assert plain.with_exit_status({"wg0": published, "wg1": following}) == {
        "wg0": {"next": HOLDS, "published": ["a does not reach b"]},
        "wg1": {"next": ["a does not reach b"]},
        "retcode": 1,
    }


def test_ports_name_callers_and_addresses(master):
    """The leaves call the relay, and nothing calls them."""
    (port,) = show.ports(master.opts, None)["wg0"]["r1"].items()
    assert list(show.ports(master.opts, "wg0")["wg0"]) == ["r1"]
    assert port == ("51820/udp", [f"{n} ({', '.join(master.mine[n]['underlay'])})" for n in ("a", "b")])


def test_ports_of_next_plan_are_listed(master):
    """Firewalls are opened before the plan that needs it: a new relay, and another port."""
    master.policy["wg0"]["nodes"]["a"] = {"role": "relay", "endpoint": "203.0.113.2:4000"}
    found = show.ports(master.opts, "wg0")["wg0"]
    assert "51820/udp, forwarded from 203.0.113.2:4000" in found["a"]
    assert {"51820/udp", "51822/udp"} <= found["r1"].keys()


def test_ports_of_empty_mesh_say_so(monkeypatch):
    """Nothing to open is an answer, and an unknown mesh is an error."""
    made = FakeMaster()
    made.mine = {}
    reachable_by_commands(made, monkeypatch)
    assert plain.ports(show.ports(made.opts, None)) == {"wg0": plain.NO_PORTS}
    with pytest.raises(LedgerError, match="there is no mesh 'wg9': say mesh=<one of wg0>"):
        show.ports(made.opts, "wg9")


def test_plain_leaf_is_not_drained(master):
    """Nothing of others goes through it; a gateway may be drained."""
    with pytest.raises(LedgerError, match=r"a forwards for no other node: .* it can be stopped as it is"):
        drain.require_drainable(master.opts, "a")
    master.policy["wg0"]["nodes"]["b"] = {"routes": ["10.9.0.0/24"]}
    master.run()
    drain.require_drainable(master.opts, "b")


def test_rollback_reports_pin_and_end(master, monkeypatch):
    """The report says to what the mesh is pinned, and until when; each later converge repeats it, until it ends."""
    master.policy["wg0"]["mtu"] = 1400
    master.run()
    converge = lambda _opts: ConvergeResult(reports=master.run_all())  # noqa: E731
    monkeypatch.setattr(rollback.run_converge, "run_converge", converge)
    pin = rollback.pin_and_converge(master.opts, 1, None).as_dict()["wg0"]["policy_pin"]
    assert pin["generation"] == 1
    assert pin["remedy"].startswith("ends when the mesh's policy in the pillar changes")
    assert master.run().as_dict()["policy_pin"] == pin
    assert rollback.pin_and_converge(master.opts, 0, "wg0").as_dict()["wg0"]["policy_pin"] == PIN_ENDED
    assert "policy_pin" not in master.run().as_dict()
    rollback.pin_and_converge(master.opts, 1, None)
    master.policy["wg0"]["mtu"] = 1390
    assert "policy_pin" not in master.run().as_dict()


def test_paths_refuse_unknown_family(master):
    """The error names the two families; these and no family are taken."""
    assert show.paths(master.opts, "wg0", "4") == show.paths(master.opts, None)
    assert show.paths(master.opts, "wg0", 6) == {"r1": {}, "a": {}, "b": {}}
    with pytest.raises(LedgerError, match="family=4 or family=6"):
        show.paths(master.opts, "wg0", "ipv6")
