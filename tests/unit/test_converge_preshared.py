"""Preshared keys from policy to pillar: turned on, off and rotated, whoever answers; and told to nobody else."""

from __future__ import annotations

import json
import stat
from typing import Any

import pytest

from saltext_wgmesh.core import health, preshared, render, sealed, secrecy
from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.master import converge, inventory, keyring, presharing, show, status
from saltext_wgmesh.master.draft import draft
from saltext_wgmesh.master.keyring import Keyring
from saltext_wgmesh.minion import keys
from tests.unit.fakehost import FakeHost, Kernel
from tests.unit.test_converge import World, mine

NODES = ("r1", "a", "b")


class SecretWorld(World):
    """A World whose nodes have real keys and read their pillar."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Any) -> None:
        super().__init__(monkeypatch)
        self.opts: dict[str, Any] = {"pki_dir": str(folder / "pki")}
        self.hosts = {n: FakeHost.below(folder / n, Kernel()) for n in NODES}
        self.mine = {n: mine(n, public_key=keys.ensure(host)) for n, host in self.hosts.items()}
        self.now = 10_000.0
        self.ring = Keyring.of(self.opts, "wg0")

    def turn(self, *, on: bool) -> None:
        self.policy = {"wg0": {**self.policy["wg0"], "preshared_keys": on}}

    def converge(self, ask: str | None = None, *, renew: bool = False) -> converge.Report:
        asked = converge.Asked(renew=frozenset(["wg0"] if renew else []))
        (report,) = converge.converge(self.opts, asked)
        return report

    def pillar(self, node: str) -> dict[str, str]:
        """Identifier → key, as *node* has them from its pillar."""
        boxes = keyring.delivery(self.opts, self.ledger.views(node))
        (private,) = keys.private_keys(self.hosts[node])
        return json.loads(sealed.unseal(boxes["wg0"], "wg0", private)) if boxes else {}

    def key(self, node: str, neighbour: str) -> str | None:
        """The preshared key that *node* is to have with *neighbour*."""
        view = self.ledger.views(node)["wg0"]
        (peer,) = [p for i in view["interfaces"] for p in i["peers"] if p["node"] == neighbour]
        return self.pillar(node)[peer["preshared"][0]] if peer.get("preshared") else None

    def links(self) -> dict[str, str | None]:
        """Leaf → the key of its link, which both ends were told alike."""
        assert all(self.key(leaf, "r1") == self.key("r1", leaf) for leaf in ("a", "b"))
        return {leaf: self.key(leaf, "r1") for leaf in ("a", "b")}


@pytest.fixture
def world(monkeypatch, tmp_path):
    return SecretWorld(monkeypatch, tmp_path)


@pytest.fixture
def on(world):
    """A mesh that has preshared keys from its first plan on."""
    world.turn(on=True)
    world.converge()
    return world


def test_without_them_nothing_is_made_and_nobody_is_told_anything(world):
    """The default: no secret, no key in any view, no pillar key."""
    world.converge()
    assert world.links() == {"a": None, "b": None}
    assert not world.ring.folder.exists()


def test_each_pair_has_a_key_of_its_own_from_the_first_plan_on(on):
    """One secret, readable by the master only; the second run publishes nothing."""
    found = on.links()
    assert None not in found.values()
    assert len(set(found.values())) == 2
    (secret,) = on.ring.folder.iterdir()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (secret, on.ring.folder)] == [0o600, 0o700]
    report = on.converge()
    assert (report.published, report.other_preshared_key) == (False, [])


def test_a_node_is_given_its_own_keys_and_no_others(on):
    """A leaf has one neighbour; nothing in its pillar can be read by another."""
    assert (len(on.pillar("r1")), len(on.pillar("a")), len(on.pillar("b"))) == (2, 1, 1)
    box = keyring.delivery(on.opts, on.ledger.views("a"))["wg0"]
    (other,) = keys.private_keys(on.hosts["b"])
    with pytest.raises(ValueError, match="not sealed"):
        sealed.unseal(box, "wg0", other)


def test_no_secret_is_in_the_ledger_or_in_what_is_told(on, caplog):
    """Neither the mesh's nor a pair's: not after a rotation with somebody away, nor in a plan that is only shown."""
    everything = [*on.links().values()]
    on.off.add("b")
    secrets = [path.read_text().strip() for path in on.ring.folder.iterdir()]
    reports = [on.converge(renew=True)]
    on.now += secrecy.PATIENCE
    reports.append(on.converge())
    everything += [*on.links().values(), *secrets, *(path.read_text().strip() for path in on.ring.folder.iterdir())]
    told = repr([report.as_dict() for report in reports]) + repr(show.plan(on.opts)) + repr(show.proof(on.opts))
    told += repr(draft(on.opts, on.ledger)) + json.dumps(on.ledger._cache.banks) + caplog.text
    assert len(set(everything)) == 5
    assert not [secret for secret in everything if str(secret) in told]


def test_turned_on_and_off_on_a_mesh_that_runs(world):
    """Each is one generation, and the secret goes with the last key: not in the same run, since a pillar with the old
    keys may be under way."""
    world.converge()
    world.turn(on=True)
    report = world.converge()
    assert (report.generation, report.applied, report.other_preshared_key) == (2, ["a", "b", "r1"], [])
    assert None not in world.links().values()
    world.turn(on=False)
    assert world.converge().generation == 3
    assert world.links() == {"a": None, "b": None}
    world.converge()
    assert list(world.ring.folder.iterdir()) == []


def test_a_rotation_gives_every_pair_another_key(on):
    """And the old secret goes when nobody has it any more."""
    before, (old,) = on.links(), list(on.ring.folder.iterdir())
    report = on.converge(renew=True)
    assert (report.generation, report.clean, report.other_preshared_key) == (2, True, [])
    assert not set(before.values()) & set(on.links().values())
    assert len(list(on.ring.folder.iterdir())) == 2
    assert not on.converge().published
    assert old not in on.ring.folder.iterdir()


def test_a_node_that_is_known_to_be_away_keeps_its_keys_and_so_does_its_neighbour_with_it(on, monkeypatch):
    """Its link would die at the next handshake. When it is heard again, the pair goes on."""
    before = on.links()
    on.ledger.keep_health("wg0", health.Health(silent=frozenset({"b"})))
    report = on.converge(renew=True)
    assert on.links()["a"] != before["a"]
    assert on.links()["b"] == before["b"]
    assert (report.other_preshared_key, report.told_in_vain) == (["b"], [])
    monkeypatch.setattr(inventory, "accepted_keys", lambda _opts: dict.fromkeys(NODES, "key"))
    told = status.status(on.opts, live=False)
    assert told["wg0"]["other_preshared_key"] == ["b"]
    assert "not yet at the last preshared keys: b\n" in render.status(told)
    assert on.pushes[-1] == ["a", "r1"]
    on.now += 60
    assert not on.converge().published
    on.ledger.keep_health("wg0", health.Health())
    assert on.converge().other_preshared_key == []
    assert on.links()["b"] != before["b"]
    assert on.pushes[-1] == ["b", "r1"]


def test_who_is_told_in_vain_is_gone_back_with_soon(on):
    """The report asks for more runs; in the first after its time to answer is over, its neighbour has the old key
    again; it is told once more later."""
    before = on.links()
    on.off.add("b")
    report = on.converge(renew=True)
    assert report.told_in_vain == ["b"]
    on.now += secrecy.PATIENCE - 1
    report = on.converge()
    assert (report.published, report.told_in_vain) == (False, ["b"])
    on.now += 1
    report = on.converge()
    assert (report.applied, report.told_in_vain, report.other_preshared_key) == (["r1"], [], ["b"])
    assert on.links()["b"] == before["b"]
    on.off.clear()
    for seconds in (300, 301):
        on.now += seconds
        on.converge()
    assert on.links()["b"] != before["b"]
    assert on.converge().clean


def test_who_answers_late_is_not_gone_back_with(on):
    """What it said when nobody waited for it any more is heard before anything is planned."""
    before = on.links()
    on.off.add("b")
    on.converge(renew=True)
    on.off.clear()
    on.late["b"] = {"wg0": {"digest": on.ledger.head("wg0").digests["b"]}}
    on.now += secrecy.PATIENCE
    report = on.converge()
    assert (report.published, report.clean, report.other_preshared_key) == (False, True, [])
    assert on.links()["b"] != before["b"]


def test_who_refuses_is_gone_back_with_at_once(on, monkeypatch):
    """It has answered: nothing is waited for."""
    before, applied = on.links(), on.applied
    monkeypatch.setattr(on, "applied", lambda node: "ERROR: no space left" if node == "b" else applied(node))
    assert on.converge(renew=True).told_in_vain == ["b"]
    report = on.converge()
    assert (report.published, report.other_preshared_key) == (True, ["b"])
    assert on.links()["b"] == before["b"]


def test_runs_that_nobody_waits_for_go_on_with_it(on):
    """Else who is away would be forgotten: nothing of what the plan is made from changes meanwhile."""
    on.ledger.keep_health("wg0", health.Health(silent=frozenset({"b"})))
    on.converge(renew=True)
    assert converge.converge(on.opts, waited_for=False)


def test_a_rotation_while_one_is_not_complete(on):
    """Who slept through both goes from the first key to the third."""
    before = on.links()
    on.ledger.keep_health("wg0", health.Health(silent=frozenset({"b"})))
    on.converge(renew=True)
    on.converge(renew=True)
    assert len(list(on.ring.folder.iterdir())) == 3
    assert on.links()["b"] == before["b"]
    on.converge()
    assert len(list(on.ring.folder.iterdir())) == 2
    on.ledger.keep_health("wg0", health.Health())
    on.converge()
    assert on.links()["b"] not in (None, before["b"])


def test_another_public_key_is_another_preshared_key(on):
    """By itself: nothing needs to be rotated for it."""
    before = on.links()
    keys.remove(on.hosts["a"])
    on.mine["a"] = mine("a", public_key=keys.ensure(on.hosts["a"]))
    on.converge()
    assert on.links()["a"] != before["a"]
    assert on.links()["b"] == before["b"]


def test_a_lost_secret_is_replaced_and_said(on, caplog):
    """Every pair gets another key: nobody can tell the old ones to a node that lacks them."""
    before = on.links()
    for path in on.ring.folder.iterdir():
        path.unlink()
    assert on.pillar("a") == {}
    assert "run wgmesh.converge" in caplog.text
    on.converge()
    assert not set(on.links().values()) & {None, *before.values()}
    assert "secrets of preshared keys are gone" in caplog.text


def test_a_master_that_dies_before_it_publishes_has_told_nobody(on, monkeypatch):
    """The secret that nobody uses goes later; the next rotation makes its own."""
    before = on.links()
    with monkeypatch.context() as patched:
        patched.setattr(type(on.ledger), "publish", lambda *_: (_ for _ in ()).throw(OSError("the power is out")))
        with pytest.raises(OSError, match="power"):
            on.converge(renew=True)
    assert on.links() == before
    assert len(list(on.ring.folder.iterdir())) == 2
    on.converge()
    assert len(list(on.ring.folder.iterdir())) == 1


def test_a_plan_that_is_only_looked_at_makes_no_secret(world):
    """It says that keys would be set."""
    world.converge()
    world.turn(on=True)
    told = show.plan(world.opts)["wg0"]["changes"]
    assert told["a"] == ["~ peer r1 on wg0-u1: preshared key: none → set"]
    assert not world.ring.folder.exists()
    world.converge()
    assert show.plan(world.opts)["wg0"]["changes"] == {}


@pytest.mark.parametrize(
    ("mesh", "error"),
    [
        ("wg9", "wg9 is not in the policy: set preshared_keys: true under wgmesh:wg9"),
        ("wg0", "wg0 has no preshared keys: set preshared_keys: true under wgmesh:wg0"),
        (None, "no mesh has preshared keys: set preshared_keys: true under wgmesh:<mesh>"),
    ],
)
def test_only_a_mesh_with_preshared_keys_can_be_given_others(world, monkeypatch, mesh, error):
    """The error says what to set."""
    monkeypatch.setattr(inventory, "raw_policy", lambda _opts: world.policy)
    with pytest.raises(LedgerError, match=error):
        presharing.to_renew(world.opts, mesh)
    world.turn(on=True)
    assert presharing.to_renew(world.opts, None) == presharing.to_renew(world.opts, "wg0") == ["wg0"]


def test_a_public_key_that_nothing_can_be_encrypted_to_is_that_nodes_own_trouble(on, caplog):
    """A node may publish any 32 bytes."""
    views = on.ledger.views("a")
    views["wg0"] = {**views["wg0"], "keys": ["A" * 43 + "="]}
    assert keyring.delivery(on.opts, views) == {}
    assert "nothing can be sealed to the public key of a" in caplog.text


def test_a_secret_prints_as_its_name():
    """Wherever one is shown by mistake."""
    secret = keyring.Secret.make()
    assert secret.text not in repr(secret)
    assert secret.name == preshared.identifier(secret.text)
