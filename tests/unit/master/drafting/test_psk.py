"""Preshared keys (PSKs) from policy to pillar: turned on, off and rotated, whichever nodes answer."""

from __future__ import annotations

import json
import stat

import pytest

from saltext_wgmesh.core import render
from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.core.keys import psk_rollover, sealed_box
from saltext_wgmesh.core.keys.psk import psk_id
from saltext_wgmesh.core.liveness import mesh_health
from saltext_wgmesh.master.drafting import psk
from saltext_wgmesh.master.operator import show, status
from saltext_wgmesh.master.records import psk_secrets
from saltext_wgmesh.minion.state import keys
from tests.unit.harness.fake_master import mine, reachable_by_commands
from tests.unit.harness.secret_master import SecretMaster


@pytest.fixture
def world(monkeypatch, tmp_path) -> SecretMaster:
    master = SecretMaster(tmp_path)
    reachable_by_commands(master, monkeypatch)
    return master


@pytest.fixture
def on(world):
    """A mesh that has preshared keys from its first plan on."""
    world.turn(on=True)
    world.run()
    return world


def test_mesh_without_psks_makes_none(world):
    """The default: no secret, no key in any view, no pillar key."""
    world.run()
    assert world.psks() == {"a": None, "b": None}
    assert not world.ring.folder.exists()


def test_each_pair_has_its_own_psk_at_once(on):
    """One secret, readable by the master only; the second run publishes nothing."""
    found = on.psks()
    assert None not in found.values()
    assert len(set(found.values())) == 2
    (secret,) = on.ring.folder.iterdir()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (secret, on.ring.folder)] == [0o600, 0o700]
    report = on.run()
    assert (report.published, report.psk_laggards) == (False, ())


def test_node_gets_only_its_own_psks(on):
    """A leaf has one neighbour; nothing in its pillar can be read by another."""
    assert (len(on.pillar("r1")), len(on.pillar("a")), len(on.pillar("b"))) == (2, 1, 1)
    box = psk_secrets.sealed_psks(on.opts, on.ledger.assignments("a"))["wg0"]
    (other,) = keys.private_keys(on.hosts["b"])
    with pytest.raises(ValueError, match="not sealed"):
        sealed_box.open_sealed(box, "wg0", other)


def test_no_secret_is_in_ledger_reports_or_logs(on, caplog):
    """Neither the mesh's nor a pair's: not after a rotation with a node away, nor in a plan that is only shown."""
    everything = [*on.psks().values()]
    on.off.add("b")
    secrets = [path.read_text().strip() for path in on.ring.folder.iterdir()]
    reports = [on.run(rotate_psk="wg0")]
    on.now += psk_rollover.EPOCH_TIMEOUT
    reports.append(on.run())
    everything += [*on.psks().values(), *secrets, *(path.read_text().strip() for path in on.ring.folder.iterdir())]
    told = repr([report.as_dict() for report in reports]) + repr(show.plan(on.opts)) + repr(show.proof(on.opts))
    told += repr(on.drafts()) + json.dumps(on.cache.banks) + caplog.text
    assert len(set(everything)) == 5
    assert not [secret for secret in everything if str(secret) in told]


def test_psks_are_turned_on_and_off_while_running(world):
    """Each is one generation, and the secret goes with the last key: not in the same run, since a pillar with the old
    keys may be under way."""
    world.run()
    world.turn(on=True)
    report = world.run()
    assert (report.generation, report.applied, report.psk_laggards) == (2, ("a", "b", "r1"), ())
    assert None not in world.psks().values()
    world.turn(on=False)
    assert world.run().generation == 3
    assert world.psks() == {"a": None, "b": None}
    world.run()
    assert list(world.ring.folder.iterdir()) == []


def test_rotation_gives_every_pair_another_psk(on):
    """And the old secret goes when no node has it any more."""
    before, (old,) = on.psks(), list(on.ring.folder.iterdir())
    report = on.run(rotate_psk="wg0")
    assert (report.generation, report.is_clean, report.psk_laggards) == (2, True, ())
    assert not set(before.values()) & set(on.psks().values())
    assert len(list(on.ring.folder.iterdir())) == 2
    assert not on.run().published
    assert old not in on.ring.folder.iterdir()


def test_absent_node_and_its_neighbour_keep_their_psk(on, monkeypatch):
    """Its link would die at the next handshake. When it is heard again, the pair goes on."""
    before = on.psks()
    on.ledger.save_health("wg0", mesh_health.Health(unresponsive=frozenset({"b"})))
    report = on.run(rotate_psk="wg0")
    assert on.psks()["a"] != before["a"]
    assert on.psks()["b"] == before["b"]
    assert (report.psk_laggards, report.psk_unacknowledged) == (("b",), ())
    told = status.status(on.opts, live=False)["wg0"]
    assert told.psk_laggards == {"b"}
    assert "not yet at the last preshared keys: b\n" in render.render_status({"wg0": told.as_dict()})
    assert on.pushes[-1] == ["a", "r1"]
    on.now += 60
    assert not on.run().published
    on.ledger.save_health("wg0", mesh_health.Health())
    assert on.run().psk_laggards == ()
    assert on.psks()["b"] != before["b"]
    assert on.pushes[-1] == ["b", "r1"]


def test_unacknowledged_psk_is_withdrawn_soon(on):
    """The report asks for more runs; in the first after its time to answer is over, its neighbour has the old key
    again; it is told once more later."""
    before = on.psks()
    on.off.add("b")
    report = on.run(rotate_psk="wg0")
    assert report.psk_unacknowledged == ("b",)
    on.now += psk_rollover.EPOCH_TIMEOUT - 1
    report = on.run()
    assert (report.published, report.psk_unacknowledged) == (False, ("b",))
    on.now += 1
    report = on.run()
    assert (report.applied, report.psk_unacknowledged, report.psk_laggards) == (("r1",), (), ("b",))
    assert on.psks()["b"] == before["b"]
    on.off.clear()
    for seconds in (300, 301):
        on.now += seconds
        on.run()
    assert on.psks()["b"] != before["b"]
    assert on.run().is_clean


def test_late_acknowledgement_keeps_the_new_psk(on):
    """Late returns are collected before anything is planned."""
    before = on.psks()
    on.off.add("b")
    on.run(rotate_psk="wg0")
    on.off.clear()
    on.late["b"] = {"wg0": {"digest": on.ledger.head("wg0").digests["b"]}}
    on.now += psk_rollover.EPOCH_TIMEOUT
    report = on.run()
    assert (report.published, report.is_clean, report.psk_laggards) == (False, True, ())
    assert on.psks()["b"] != before["b"]


def test_refused_psk_is_withdrawn_at_once(on, monkeypatch):
    """It has answered: nothing is waited for."""
    before, applied = on.psks(), on.applied
    on.applied = lambda node: "ERROR: no space left" if node == "b" else applied(node)
    assert on.run(rotate_psk="wg0").psk_unacknowledged == ("b",)
    report = on.run()
    assert (report.published, report.psk_laggards) == (True, ("b",))
    assert on.psks()["b"] == before["b"]


def test_scheduled_runs_continue_a_rollover(on):
    """Else the absent node would be forgotten: no input of the plan changes until it is back."""
    on.ledger.save_health("wg0", mesh_health.Health(unresponsive=frozenset({"b"})))
    on.run(rotate_psk="wg0")
    assert on.run_all(interactive=False)


def test_second_rotation_starts_before_the_first_ends(on):
    """A node that was away for both goes from the first PSK to the third."""
    before = on.psks()
    on.ledger.save_health("wg0", mesh_health.Health(unresponsive=frozenset({"b"})))
    on.run(rotate_psk="wg0")
    on.run(rotate_psk="wg0")
    assert len(list(on.ring.folder.iterdir())) == 3
    assert on.psks()["b"] == before["b"]
    on.run()
    assert len(list(on.ring.folder.iterdir())) == 2
    on.ledger.save_health("wg0", mesh_health.Health())
    on.run()
    assert on.psks()["b"] not in (None, before["b"])


def test_new_public_key_gives_a_new_psk(on):
    """By itself: nothing needs to be rotated for it."""
    before = on.psks()
    keys.remove_keys(on.hosts["a"])
    on.mine["a"] = mine("a", public_key=keys.ensure(on.hosts["a"]))
    on.run()
    assert on.psks()["a"] != before["a"]
    assert on.psks()["b"] == before["b"]


def test_lost_secret_is_replaced_and_logged(on, caplog):
    """Every pair gets another key: a node that lacks the old ones can't get them any more."""
    before = on.psks()
    for path in on.ring.folder.iterdir():
        path.unlink()
    assert on.pillar("a") == {}
    assert "run wgmesh.converge" in caplog.text
    on.run()
    assert not set(on.psks().values()) & {None, *before.values()}
    assert "secrets of PSKs are missing" in caplog.text


def test_master_that_dies_before_publishing_changes_nothing(on, monkeypatch):
    """The unused secret goes later; the next rotation makes its own."""
    before = on.psks()
    with monkeypatch.context() as patched:
        patched.setattr(type(on.ledger), "publish", lambda *_: (_ for _ in ()).throw(OSError("the power is out")))
        with pytest.raises(OSError, match="power"):
            on.run(rotate_psk="wg0")
    assert on.psks() == before
    assert len(list(on.ring.folder.iterdir())) == 2
    on.run()
    assert len(list(on.ring.folder.iterdir())) == 1


def test_shown_plan_makes_no_secret(world):
    """It says that keys would be set."""
    world.run()
    world.turn(on=True)
    told = show.plan(world.opts)["wg0"].changes
    assert told["a"] == ["~ peer r1 on wg0-u1: preshared key: none → set"]
    assert not world.ring.folder.exists()
    world.run()
    assert show.plan(world.opts)["wg0"].changes == {}


@pytest.mark.parametrize(
    ("mesh", "error"),
    [
        ("wg9", "wg9 is not in the policy: set preshared_keys: true under wgmesh:wg9"),
        ("wg0", "wg0 has no preshared keys: set preshared_keys: true under wgmesh:wg0"),
        (None, "no mesh has preshared keys: set preshared_keys: true under wgmesh:<mesh>"),
    ],
)
def test_mesh_without_psks_can_not_rotate_them(world, mesh, error):
    """The error says what to set."""
    with pytest.raises(LedgerError, match=error):
        psk.meshes_to_rotate(world.policy, mesh)
    world.turn(on=True)
    assert psk.meshes_to_rotate(world.policy, None) == psk.meshes_to_rotate(world.policy, "wg0") == ["wg0"]


def test_unusable_public_key_concerns_its_node_only(on, caplog):
    """A node may publish any 32 bytes."""
    views = on.ledger.assignments("a")
    views["wg0"] = {**views["wg0"], "keys": ["A" * 43 + "="]}
    assert psk_secrets.sealed_psks(on.opts, views) == {}
    assert "nothing can be sealed to the public key of a" in caplog.text


def test_secret_prints_as_its_name():
    """Wherever one is shown by mistake."""
    secret = psk_secrets.Secret.make()
    assert secret.text not in repr(secret)
    assert secret.name == psk_id(secret.text)
