"""Each state of ``wgmesh``, by the real loader on real devices, with test=True and False."""

import json
import stat
import time
import types
from pathlib import Path

import pytest

from saltext_wgmesh.core import facts, names
from saltext_wgmesh.minion import keys, offers
from saltext_wgmesh.minion.host import Host
from tests import nodeviews
from tests.functional.conftest import private_key_forms
from tests.nodeviews import leaf, peer, relay

KEY_FILE = Path("/etc/wireguard/wgmesh.key")


@pytest.fixture
def with_key(states):
    """The node has its key."""
    assert states.wgmesh.key_present("key").result is True


def devices(outside):
    """The WireGuard devices that are there."""
    return outside("wg", "show", "interfaces").split()


class TestKeyPresent:
    def test_makes_a_key_that_only_root_can_read(self, states):
        """The first run makes the key and tells its public half; the second finds nothing to do."""
        made = states.wgmesh.key_present("key")
        assert made.result is True
        assert list(made.changes) == ["key"]
        assert len(made.changes["key"]["new"]) == 44
        assert stat.S_IMODE(KEY_FILE.stat().st_mode) == 0o600
        text = KEY_FILE.read_text()
        again = states.wgmesh.key_present("key")
        assert (again.result, again.changes) == (True, {})
        assert KEY_FILE.read_text() == text

    def test_makes_none_in_test_mode(self, states):
        """Test mode says that a key would be made, and makes none."""
        told = states.wgmesh.key_present("key", test=True)
        assert told.result is None
        assert told.changes == {"key": {"old": None, "new": str(KEY_FILE)}}
        assert not KEY_FILE.exists()

    def test_mends_permissions(self, states, with_key):
        """A key that others could read is closed again, and stays the same key."""
        text = KEY_FILE.read_text()
        KEY_FILE.chmod(0o644)
        assert states.wgmesh.key_present("key", test=True).result is None
        assert stat.S_IMODE(KEY_FILE.stat().st_mode) == 0o644
        mended = states.wgmesh.key_present("key")
        assert mended.result is True
        assert mended.changes == {"mode": {"old": "0644", "new": "0600"}}
        assert stat.S_IMODE(KEY_FILE.stat().st_mode) == 0o600
        assert KEY_FILE.read_text() == text

    @pytest.mark.parametrize("test", [True, False])
    def test_never_overwrites_what_it_can_not_read(self, states, test):
        """A file that holds no key is an error, is kept, and is not quoted."""
        KEY_FILE.write_text("half-a-secret\n")
        told = states.wgmesh.key_present("key", test=test)
        assert told.result is False
        assert str(KEY_FILE) in told.comment
        assert "half-a-secret" not in told.comment
        assert KEY_FILE.read_text() == "half-a-secret\n"


class TestFactsPublished:
    def test_publishes_once(self, states, modules, with_key):
        """The mine holds the facts after the first run, and a second run with the same facts sends nothing."""
        assert states.wgmesh.facts_published("facts", test=True).result is None
        assert modules.mine.get("node1", "wgmesh.facts") == {}
        first = states.wgmesh.facts_published("facts")
        assert first.result is True
        assert first.changes["facts"]["old"] is None
        assert first.changes["facts"]["new"]["underlay"] == ["192.0.2.1"]
        assert modules.mine.get("node1", "wgmesh.facts")["node1"]["underlay"] == ["192.0.2.1"]
        again = states.wgmesh.facts_published("facts")
        assert (again.result, again.changes) == (True, {})

    def test_publishes_what_is_new(self, states, modules, outside, with_key):
        """An address that comes up is published by the next run, with the old facts beside it."""
        states.wgmesh.facts_published("facts")
        outside("ip", "address", "add", "198.51.100.7/24", "dev", "eth0")
        told = states.wgmesh.facts_published("facts")
        assert told.changes["facts"]["old"]["underlay"] == ["192.0.2.1"]
        assert told.changes["facts"]["new"]["underlay"] == ["192.0.2.1", "198.51.100.7"]

    def test_believes_the_pillar_about_the_mine(self, states, modules, pillar, with_key):
        """Where the master says in the pillar that the mine holds these facts, the mine is not asked."""
        pillar({names.PUBLISHED_KEY: facts.digest(modules.wgmesh.facts())})
        told = states.wgmesh.facts_published("facts")
        assert (told.result, told.changes) == (True, {})
        pillar({names.PUBLISHED_KEY: "of other facts"})
        assert list(states.wgmesh.facts_published("facts").changes) == ["facts"]

    def test_says_in_test_mode_that_the_key_comes_first(self, states):
        """On a new node in test mode the facts can't be known yet, and that is no error."""
        told = states.wgmesh.facts_published("facts", test=True)
        assert told.result is None
        assert list(told.changes) == ["facts"]

    def test_is_false_without_a_key(self, states):
        """Without a key there is nothing to publish, and the comment says what makes one."""
        told = states.wgmesh.facts_published("facts")
        assert told.result is False
        assert "state.apply wgmesh" in told.comment


class TestJoined:
    def test_makes_what_the_pillar_says_and_then_nothing(self, states, offer, outside, with_key):
        """The views of the pillar are applied; the second run has no changes; test mode does neither."""
        offer(wg0=leaf(direct=(peer(7),)))
        told = states.wgmesh.joined("mesh", test=True)
        assert told.result is None
        assert told.changes["wg0"]["device"] == {"old": None, "new": "present"}
        assert devices(outside) == []
        done = states.wgmesh.joined("mesh")
        assert done.result is True
        assert sorted(devices(outside)) == ["wg0", "wg0-u1", "wg0-u2"]
        assert done.changes["routes"]["10.100.0.0/16"] == {"old": None, "new": "wg0-u1 from 10.100.0.5"}
        again = states.wgmesh.joined("mesh")
        assert (again.result, again.changes) == (True, {})
        tested = states.wgmesh.joined("mesh", test=True)
        assert (tested.result, tested.changes) == (True, {})

    def test_a_pillar_that_is_older_than_what_the_master_pushed_is_read_anew(
        self, states, modules, offer, with_key, monkeypatch
    ):
        """A state run may take minutes, and its pillar is from when it began. A ledger that began anew is believed."""
        new, old = leaf(relays=(1, 2)), leaf(relays=(1,))
        is_old, seen = offers.is_old, []

        def look(host, offered):
            seen.append(is_old(host, offered))
            offer(wg0={**new.as_dict(), "generation": 9, "digest": new.digest()})
            return seen[-1]

        look(Host(), {})
        modules.wgmesh.apply()
        monkeypatch.setattr(offers, "is_old", look)
        offer(wg0=old)
        told = states.wgmesh.joined("mesh")
        assert (told.result, told.changes, seen) == (True, {}, [False, True])
        offer(wg0=old)
        assert modules.wgmesh.apply()["wg0"]["digest"] == old.digest()

    def test_tells_why_a_node_is_no_member(self, states, offer, with_key):
        """A reason in place of a view is no failure: the comment repeats it."""
        offer(wg0={"reason": "no entry of wgmesh:wg0:nodes matches this id", "digest": "reason: x"})
        told = states.wgmesh.joined("mesh")
        assert (told.result, told.changes) == (True, {})
        assert "no entry of wgmesh:wg0:nodes matches this id" in told.comment

    def test_takes_up_the_push_that_it_waits_for(self, states, modules, offer, with_key, monkeypatch):
        """With an empty pillar the state waits; what the push then applies is what it reports."""
        view = leaf()

        def push(_seconds):
            offer(wg0=view)
            modules.wgmesh.apply()

        clock = types.SimpleNamespace(monotonic=time.monotonic, sleep=push)
        monkeypatch.setattr("saltext_wgmesh.minion.joining.time", clock)
        told = states.wgmesh.joined("mesh", timeout=5)
        assert told.result is True
        assert told.changes["wg0-u1"] == {"old": None, "new": "peers n1"}
        assert sorted(told.changes) == ["wg0", "wg0-u1", "wg0-u2"]

    def test_waits_on_while_only_others_are_lacking(self, states, modules, offer, with_key, monkeypatch):
        """A place that waits for other nodes is not the last word: the view that follows is what is reported."""
        pushes = iter([{"reason": "n1 is not there yet", "pending": True, "digest": "reason: x"}, leaf()])

        def push(_seconds):
            offer(wg0=next(pushes))
            modules.wgmesh.apply()

        clock = types.SimpleNamespace(monotonic=time.monotonic, sleep=push)
        monkeypatch.setattr("saltext_wgmesh.minion.joining.time", clock)
        told = states.wgmesh.joined("mesh", timeout=5)
        assert told.result is True
        assert sorted(told.changes) == ["wg0", "wg0-u1", "wg0-u2"]

    def test_an_old_answer_is_no_answer(self, states, modules, offer, with_key):
        """What the master pushed before this run asked it says nothing of the present."""
        offer(wg0={"reason": "old", "digest": "reason: old"})
        modules.wgmesh.apply()
        offer()
        assert states.wgmesh.joined("mesh", timeout=0.1).result is False

    def test_gives_up_after_its_time(self, states, with_key):
        """Where no push comes, the state fails and names the command that says why."""
        told = states.wgmesh.joined("mesh", timeout=0.1)
        assert (told.result, told.changes) == (False, {})
        assert "salt-run wgmesh.plan" in told.comment

    def test_does_not_wait_in_test_mode(self, states, with_key):
        """Test mode with an empty pillar foretells the join at once."""
        told = states.wgmesh.joined("mesh", timeout=600, test=True)
        assert told.result is None
        assert list(told.changes) == ["meshes"]

    def test_applies_one_mesh_though_another_fails(self, states, offer, outside, with_key):
        """A damaged view fails the state and is named, and the other mesh is applied all the same."""
        offer(wg0=leaf(relays=()), wg1={"schema": 99, "interfaces": []})
        told = states.wgmesh.joined("mesh")
        assert told.result is False
        assert "wg1: " in told.comment
        assert "schema 99" in told.comment
        assert devices(outside) == ["wg0"]
        assert told.changes["wg0"]["device"] == {"old": None, "new": "present"}


class TestInterfacePresent:
    def test_makes_one_mesh(self, states, offer, outside, with_key):
        """Only the named mesh of the pillar is applied, once."""
        offer(wg0=leaf(relays=()), wg1=relay(mesh="wg1"))
        assert states.wgmesh.interface_present("wg1", test=True).result is None
        assert devices(outside) == []
        done = states.wgmesh.interface_present("wg1")
        assert done.result is True
        assert sorted(devices(outside)) == ["wg1", "wg1-t2"]
        again = states.wgmesh.interface_present("wg1")
        assert (again.result, again.changes) == (True, {})

    def test_takes_a_view_of_its_own(self, states, outside, with_key):
        """A view in the SLS file needs no pillar."""
        done = states.wgmesh.interface_present("wg0", view=leaf(relays=()).as_dict())
        assert done.result is True
        assert devices(outside) == ["wg0"]

    @pytest.mark.parametrize("test", [True, False])
    def test_is_false_without_a_view(self, states, test, with_key):
        """A mesh of which the pillar says nothing can't be made."""
        told = states.wgmesh.interface_present("wg0", test=test)
        assert (told.result, told.changes) == (False, {})
        assert "salt-run wgmesh.plan" in told.comment

    @pytest.mark.parametrize("test", [True, False])
    def test_leaves_a_foreign_device_alone(self, states, outside, with_key, test):
        """A device of that name that is not ours is an error, and nothing is changed."""
        outside("ip", "link", "add", "wg0", "type", "bridge")
        before = outside("ip", "address")
        told = states.wgmesh.interface_present("wg0", view=leaf().as_dict(), test=test)
        assert (told.result, told.changes) == (False, {})
        assert "wg0 exists" in told.comment
        assert outside("ip", "address") == before

    @pytest.mark.parametrize("test", [True, False])
    def test_leaves_a_foreign_file_alone(self, states, outside, with_key, test):
        """A wg-quick file of that name that is not ours is an error, and neither it nor a device is made."""
        path = Path("/etc/wireguard/wg0.conf")
        path.write_text("# by hand\n")
        told = states.wgmesh.interface_present("wg0", view=leaf().as_dict(), test=test)
        assert (told.result, told.changes) == (False, {})
        assert str(path) in told.comment
        assert path.read_text() == "# by hand\n"
        assert devices(outside) == []


class TestAbsent:
    def test_removes_a_mesh_and_leaves_the_other(self, states, offer, outside, with_key):
        """Devices, routes, rules, files and memory of the mesh go; the other mesh and the key stay."""
        offer(wg0=relay(leaves=(peer(7),)), wg1=leaf(mesh="wg1", relays=(), port=51900))
        assert states.wgmesh.joined("mesh").result is True
        rest = outside("wg", "show", "wg1", "dump")
        assert states.wgmesh.absent("wg0", test=True).result is None
        assert "wg0" in devices(outside)
        gone = states.wgmesh.absent("wg0", key=True)
        assert gone.result is True
        assert gone.changes["wg0"] == {"device": {"old": "present", "new": None}}
        assert devices(outside) == ["wg1"]
        assert outside("wg", "show", "wg1", "dump") == rest
        assert "8700" not in outside("ip", "rule") + outside("ip", "-6", "rule")
        assert "wg0 " not in outside("ip", "route", "show", "table", "all", "proto", "87")
        assert sorted(p.name for p in Path("/etc/wireguard").iterdir()) == ["wg1.conf", "wgmesh.key"]
        again = states.wgmesh.absent("wg0", key=True)
        assert (again.result, again.changes) == (True, {})

    def test_takes_the_key_with_the_last_mesh(self, states, with_key):
        """With key=True the key goes too, once no mesh needs it."""
        states.wgmesh.interface_present("wg0", view=leaf().as_dict())
        assert states.wgmesh.absent("wg0", key=True, test=True).changes["key"] == {"old": str(KEY_FILE), "new": None}
        assert KEY_FILE.exists()
        assert states.wgmesh.absent("wg0", key=True).result is True
        assert not KEY_FILE.exists()

    def test_leaves_no_file_of_ours_with_the_last_mesh(self, states, modules, offer, with_key):
        """Neither memory, nor lock, nor outcome; the formula then starts anew."""
        offer(wg0=leaf(relays=()), wg1=leaf(mesh="wg1", relays=(), port=51900))
        assert states.wgmesh.joined("mesh").result is True
        assert modules.wgmesh.meshes() == ["wg0", "wg1"]
        states.wgmesh.absent("wg0")
        left = {p.name for p in Path("/var/lib/wgmesh").iterdir()}
        assert left == {"wg1", "wg1.lock", "outcomes.json", ".key.lock"}
        assert "wg0" not in json.loads(Path("/var/lib/wgmesh/outcomes.json").read_text())
        states.wgmesh.absent("wg1", key=True)
        assert not Path("/var/lib/wgmesh").exists()
        assert list(Path("/etc/wireguard").iterdir()) == []
        assert states.wgmesh.key_present("key").result is True
        assert states.wgmesh.joined("mesh").result is True

    def test_takes_what_an_apply_left_that_did_not_come_far(self, states, modules, with_key):
        """Preshared keys come before everything else; a view that is taken back leaves word of it."""
        folder = Host().state_dir / "wg0"
        folder.joinpath("preshared").mkdir(parents=True)
        folder.joinpath("preshared", "0123456789abcdef").write_text("secret")
        folder.joinpath("taken_back.json").write_text("{}")
        assert modules.wgmesh.meshes() == ["wg0"]
        KEY_FILE.rename(keys.next_file(Host()))
        assert states.wgmesh.absent("wg0", key=True).changes["key"] == {"old": str(KEY_FILE), "new": None}
        assert (modules.wgmesh.meshes(), folder.exists(), keys.is_any(Host())) == ([], False, False)

    @pytest.mark.parametrize("test", [True, False])
    def test_is_content_where_there_is_nothing(self, states, test):
        """A mesh that never was here is absent."""
        told = states.wgmesh.absent("wg0", test=test)
        assert (told.result, told.changes) == (True, {})


def test_no_private_key_in_what_states_return_and_log(states, offer, with_key, caplog, outside):
    """Nothing that the states return, log or leave in files but the key's own holds the private key."""
    forms = private_key_forms()
    offer(wg0=relay(leaves=(peer(7),)))
    returned = [
        states.wgmesh.key_present("key").raw,
        states.wgmesh.facts_published("facts").raw,
        states.wgmesh.joined("mesh").raw,
        states.wgmesh.absent("wg0", key=False).raw,
    ]
    states.wgmesh.joined("mesh")
    files = [p.read_text() for p in Path("/etc/wireguard").glob("*.conf")]
    files += [p.read_text() for p in Path("/var/lib/wgmesh").rglob("*") if p.is_file()]
    said = json.dumps(returned) + caplog.text + "".join(files)
    assert nodeviews.key(7) in said
    for form in forms:
        assert form not in said
