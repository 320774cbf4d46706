"""Each state of ``wgmesh``, by the real loader on real devices, with test=True and False."""

import json
import stat
import time
import types
from pathlib import Path

import pytest

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.inputs import facts_format
from saltext_wgmesh.minion.apply import assignments
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.system.host import Host
from tests import nodeviews
from tests.functional.conftest import private_key_forms
from tests.lab.wait import wait_until
from tests.nodeviews import leaf, peer, relay

KEY_FILE = Path("/etc/wireguard/wgmesh.key")


@pytest.fixture
def with_key(states):
    """Make the node's key."""
    assert states.wgmesh.key_present("key").result is True


def devices(outside):
    """Return the WireGuard devices of the machine."""
    return outside("wg", "show", "interfaces").split()


class TestKeyPresent:
    def test_key_is_readable_by_root_alone(self, states):
        """The first run makes the key file and reports the public key. The second run finds nothing to do."""
        made = states.wgmesh.key_present("key")
        assert made.result is True
        assert list(made.changes) == ["key"]
        assert len(made.changes["key"]["new"]) == 44
        assert stat.S_IMODE(KEY_FILE.stat().st_mode) == 0o600
        text = KEY_FILE.read_text()
        again = states.wgmesh.key_present("key")
        assert (again.result, again.changes) == (True, {})
        assert KEY_FILE.read_text() == text

    def test_key_is_not_made_in_test_mode(self, states):
        """Test mode reports that a key would be made, and makes none."""
        ret = states.wgmesh.key_present("key", test=True)
        assert ret.result is None
        assert ret.changes == {"key": {"old": None, "new": str(KEY_FILE)}}
        assert not KEY_FILE.exists()

    def test_key_permissions_are_corrected(self, states, with_key):
        """A key file that other users could read gets its mode back, and holds the same key."""
        text = KEY_FILE.read_text()
        KEY_FILE.chmod(0o644)
        assert states.wgmesh.key_present("key", test=True).result is None
        assert stat.S_IMODE(KEY_FILE.stat().st_mode) == 0o644
        fixed = states.wgmesh.key_present("key")
        assert fixed.result is True
        assert fixed.changes == {"mode": {"old": "0644", "new": "0600"}}
        assert stat.S_IMODE(KEY_FILE.stat().st_mode) == 0o600
        assert KEY_FILE.read_text() == text

    @pytest.mark.parametrize("test", [True, False], ids=["test mode", "real run"])
    def test_unreadable_key_is_never_overwritten(self, states, test):
        """A file without a valid key is an error. The file is kept, and its content is not in the comment."""
        KEY_FILE.write_text("half-a-secret\n")
        ret = states.wgmesh.key_present("key", test=test)
        assert ret.result is False
        assert str(KEY_FILE) in ret.comment
        assert "half-a-secret" not in ret.comment
        assert KEY_FILE.read_text() == "half-a-secret\n"


class TestFactsPublished:
    def test_facts_are_published_once(self, states, modules, with_key):
        """The mine holds the facts after the first run. A second run with the same facts sends nothing."""
        assert states.wgmesh.facts_published("facts", test=True).result is None
        assert modules.mine.get("node1", "wgmesh.facts") == {}
        first = states.wgmesh.facts_published("facts")
        assert first.result is True
        assert first.changes["facts"]["old"] is None
        assert first.changes["facts"]["new"]["underlay"] == ["192.0.2.1"]
        assert modules.mine.get("node1", "wgmesh.facts")["node1"]["underlay"] == ["192.0.2.1"]
        again = states.wgmesh.facts_published("facts")
        assert (again.result, again.changes) == (True, {})

    def test_changed_facts_are_published(self, states, modules, outside, with_key):
        """The next run publishes a new address, and its changes show old and new facts."""
        states.wgmesh.facts_published("facts")
        outside("ip", "address", "add", "198.51.100.7/24", "dev", "eth0")
        ret = states.wgmesh.facts_published("facts")
        assert ret.changes["facts"]["old"]["underlay"] == ["192.0.2.1"]
        assert ret.changes["facts"]["new"]["underlay"] == ["192.0.2.1", "198.51.100.7"]

    def test_facts_known_by_pillar_need_no_mine(self, states, modules, pillar, with_key):
        """If the pillar has the digest of these facts, the mine is not asked."""
        pillar({constants.PILLAR_FACTS_DIGEST: facts_format.facts_digest(modules.wgmesh.facts())})
        ret = states.wgmesh.facts_published("facts")
        assert (ret.result, ret.changes) == (True, {})
        pillar({constants.PILLAR_FACTS_DIGEST: "of other facts"})
        assert list(states.wgmesh.facts_published("facts").changes) == ["facts"]

    def test_facts_in_test_mode_await_key(self, states):
        """On a new node in test mode the facts are not known yet, which is no error."""
        ret = states.wgmesh.facts_published("facts", test=True)
        assert ret.result is None
        assert list(ret.changes) == ["facts"]

    def test_facts_without_key_fail(self, states):
        """Without a key there is nothing to publish. The comment names the command that makes one."""
        ret = states.wgmesh.facts_published("facts")
        assert ret.result is False
        assert "state.apply wgmesh" in ret.comment


class TestJoined:
    def test_joined_applies_views_once(self, states, offer, outside, with_key):
        """The first run applies the views of the pillar. The second has no changes, and test mode applies nothing."""
        offer(wg0=leaf(direct=(peer(7),)))
        ret = states.wgmesh.joined("mesh", test=True)
        assert ret.result is None
        assert ret.changes["wg0"]["device"] == {"old": None, "new": "present"}
        assert devices(outside) == []
        done = states.wgmesh.joined("mesh", patience=0)
        assert done.result is True
        assert sorted(devices(outside)) == ["wg0", "wg0-u1", "wg0-u2"]
        assert done.changes["routes"]["10.100.0.0/16"] == {"old": None, "new": "wg0-u1 from 10.100.0.5"}
        again = states.wgmesh.joined("mesh", patience=0)
        assert (again.result, again.changes) == (True, {})
        tested = states.wgmesh.joined("mesh", patience=0, test=True)
        assert (tested.result, tested.changes) == (True, {})

    def test_joined_replaces_stale_pillar(self, states, modules, offer, with_key, monkeypatch):
        """A pillar that is older than the last push is compiled again, since a state run may take minutes.

        If the new pillar is older too, the master's ledger began again, and is believed.
        """
        new, old = leaf(relays=(1, 2)), leaf(relays=(1,))
        is_stale, seen = assignments.is_stale, []

        def look(host, offered):
            seen.append(is_stale(host, offered))
            offer(wg0={**new.as_dict(), "generation": 9, "digest": new.digest()})
            return seen[-1]

        look(Host(), {})
        modules.wgmesh.apply()
        monkeypatch.setattr(assignments, "is_stale", look)
        offer(wg0=old)
        ret = states.wgmesh.joined("mesh", patience=0)
        assert (ret.result, ret.changes, seen) == (True, {}, [False, True])
        offer(wg0=old)
        assert modules.wgmesh.apply()["wg0"]["digest"] == old.digest()

    def test_joined_repeats_reason_of_master(self, states, offer, with_key):
        """A reason in place of a view is no failure. The comment repeats it."""
        offer(wg0={"reason": "no entry of wgmesh:wg0:nodes matches this id", "digest": "reason: x"})
        ret = states.wgmesh.joined("mesh", patience=0)
        assert (ret.result, ret.changes) == (True, {})
        assert "no entry of wgmesh:wg0:nodes matches this id" in ret.comment

    def test_joined_reports_push_it_waited_for(self, states, modules, offer, with_key, monkeypatch):
        """With an empty pillar the state waits for a push, and reports the changes of that push."""
        view = leaf()

        def push(_seconds):
            offer(wg0=view)
            modules.wgmesh.apply()

        clock = types.SimpleNamespace(monotonic=time.monotonic, sleep=push)
        monkeypatch.setattr("saltext_wgmesh.minion.apply.await_push.time", clock)
        ret = states.wgmesh.joined("mesh", timeout=5, patience=0)
        assert ret.result is True
        assert ret.changes["wg0-u1"] == {"old": None, "new": "peers n1"}
        assert sorted(ret.changes) == ["wg0", "wg0-u1", "wg0-u2"]

    def test_joined_waits_while_assignment_is_pending(self, states, modules, offer, with_key, monkeypatch):
        """A pending assignment waits for other nodes. The state waits on and reports the view that follows."""
        pushes = iter([{"reason": "n1 is not there yet", "pending": True, "digest": "reason: x"}, leaf()])

        def push(_seconds):
            offer(wg0=next(pushes))
            modules.wgmesh.apply()

        clock = types.SimpleNamespace(monotonic=time.monotonic, sleep=push)
        monkeypatch.setattr("saltext_wgmesh.minion.apply.await_push.time", clock)
        ret = states.wgmesh.joined("mesh", timeout=5, patience=0)
        assert ret.result is True
        assert sorted(ret.changes) == ["wg0", "wg0-u1", "wg0-u2"]

    def test_joined_ignores_old_assignment(self, states, modules, offer, with_key):
        """An assignment that was pushed before this run does not end the wait."""
        offer(wg0={"reason": "old", "digest": "reason: old"})
        modules.wgmesh.apply()
        offer()
        assert states.wgmesh.joined("mesh", timeout=0.1).result is False

    def test_joined_fails_after_timeout(self, states, with_key):
        """Without a push in time the state fails and names the command that explains it."""
        ret = states.wgmesh.joined("mesh", timeout=0.1)
        assert (ret.result, ret.changes) == (False, {})
        assert "salt-run wgmesh.plan" in ret.comment

    def test_joined_ends_when_master_refuses(self, states, with_key, monkeypatch):
        """A run of the master that fails for all nodes ends the wait at once, with the reason of that run."""
        monkeypatch.setattr("saltext_wgmesh.minion.apply.await_push.FETCH_AFTER", 0.1)
        failed = {constants.PILLAR_FAILED_RUN: {"reason": "wgmesh:wg0: there is no relay", "run": "2"}}
        monkeypatch.setattr("saltext_wgmesh.current_pillar.pillar", lambda _opts, _grains: failed)
        ret = states.wgmesh.joined("mesh", timeout=600)
        assert (ret.result, ret.changes) == (False, {})
        assert ret.comment == "The master sent no view: wgmesh:wg0: there is no relay"

    def test_joined_in_test_mode_does_not_wait(self, states, with_key):
        """Test mode with an empty pillar reports the join at once."""
        ret = states.wgmesh.joined("mesh", timeout=600, test=True)
        assert ret.result is None
        assert list(ret.changes) == ["meshes"]

    def test_joined_applies_mesh_though_another_fails(self, states, offer, outside, with_key):
        """A damaged view fails the state, which names it. The other mesh is applied."""
        offer(wg0=leaf(relays=()), wg1={"schema": 99, "interfaces": []})
        ret = states.wgmesh.joined("mesh", patience=0)
        assert ret.result is False
        assert "wg1: " in ret.comment
        assert "schema 99" in ret.comment
        assert devices(outside) == ["wg0"]
        assert ret.changes["wg0"]["device"] == {"old": None, "new": "present"}

    def test_joined_fails_without_any_neighbour(self, states, offer, outside, with_key):
        """Interfaces whose neighbours are silent are no success: the comment names them, and the port to open."""
        offer(wg0=leaf(relays=(1,)))
        ret = states.wgmesh.joined("mesh", patience=1)
        assert ret.result is False
        assert ret.changes["wg0"]["device"] == {"old": None, "new": "present"}
        assert "wg0: 0 of 1 links up: n1 (192.0.2.10:51820) " in ret.comment
        again = states.wgmesh.joined("mesh", patience=0.1, test=True)
        assert (again.result, again.changes) == (False, {})

    def test_joined_without_neighbours_succeeds(self, states, offer, with_key):
        """The first node of a mesh has no neighbour to wait for."""
        offer(wg0=leaf(relays=()))
        assert states.wgmesh.joined("mesh", patience=600).result is True


class TestInterfacePresent:
    def test_interface_present_makes_one_mesh(self, states, offer, outside, with_key):
        """Only the named mesh of the pillar is applied, once."""
        offer(wg0=leaf(relays=()), wg1=relay(mesh="wg1"))
        assert states.wgmesh.interface_present("wg1", test=True).result is None
        assert devices(outside) == []
        done = states.wgmesh.interface_present("wg1", patience=0)
        assert done.result is True
        assert sorted(devices(outside)) == ["wg1", "wg1-t2"]
        again = states.wgmesh.interface_present("wg1", patience=0)
        assert (again.result, again.changes) == (True, {})

    def test_interface_present_fails_without_any_neighbour(self, states, with_key):
        """Interfaces whose neighbours are silent are no success."""
        done = states.wgmesh.interface_present("wg0", view=leaf(relays=(1,)).as_dict(), patience=0.1)
        assert done.result is False
        assert "wg0: 0 of 1 links up: n1 " in done.comment

    def test_interface_present_takes_view_argument(self, states, outside, with_key):
        """A view in the SLS file needs no pillar."""
        done = states.wgmesh.interface_present("wg0", view=leaf(relays=()).as_dict())
        assert done.result is True
        assert devices(outside) == ["wg0"]

    @pytest.mark.parametrize("test", [True, False], ids=["test mode", "real run"])
    def test_interface_present_without_view_fails(self, states, test, with_key):
        """A mesh without a view in the pillar cannot be made. The comment names the command to run."""
        ret = states.wgmesh.interface_present("wg0", test=test)
        assert (ret.result, ret.changes) == (False, {})
        assert "salt-run wgmesh.plan" in ret.comment

    @pytest.mark.parametrize("test", [True, False], ids=["test mode", "real run"])
    def test_foreign_device_is_an_error(self, states, outside, with_key, test):
        """A device of that name from another program is an error, and nothing is changed."""
        outside("ip", "link", "add", "wg0", "type", "bridge")
        # Duplicate address detection on the uplink ends by itself (RFC 4862).
        wait_until(lambda: "tentative" not in outside("ip", "address"), 10, "the addresses to be usable", every=0.1)
        before = outside("ip", "address")
        ret = states.wgmesh.interface_present("wg0", view=leaf().as_dict(), test=test)
        assert (ret.result, ret.changes) == (False, {})
        assert "wg0 exists" in ret.comment
        assert outside("ip", "address") == before

    @pytest.mark.parametrize("test", [True, False], ids=["test mode", "real run"])
    def test_foreign_file_is_an_error(self, states, outside, with_key, test):
        """A wg-quick file of that name from another author is an error. It is kept, and no device is made."""
        path = Path("/etc/wireguard/wg0.conf")
        path.write_text("# by hand\n")
        ret = states.wgmesh.interface_present("wg0", view=leaf().as_dict(), test=test)
        assert (ret.result, ret.changes) == (False, {})
        assert str(path) in ret.comment
        assert path.read_text() == "# by hand\n"
        assert devices(outside) == []


class TestAbsent:
    def test_absent_leaves_the_other_mesh(self, states, offer, outside, with_key):
        """Devices, routes, rules, files and state of the mesh are removed. The other mesh and the key stay."""
        offer(wg0=relay(leaves=(peer(7),)), wg1=leaf(mesh="wg1", relays=(), port=51900))
        assert states.wgmesh.joined("mesh", patience=0).result is True
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
        assert sorted(p.name for p in Path("/etc/wireguard").iterdir()) == [
            "wg1.conf",
            "wgmesh.key",
            "wgmesh.key.minion",
        ]
        again = states.wgmesh.absent("wg0", key=True)
        assert (again.result, again.changes) == (True, {})

    def test_absent_deletes_key_with_last_mesh(self, states, with_key):
        """With ``key=True`` the key file is deleted too, once no mesh needs it."""
        states.wgmesh.interface_present("wg0", view=leaf().as_dict(), patience=0)
        assert states.wgmesh.absent("wg0", key=True, test=True).changes["key"] == {"old": str(KEY_FILE), "new": None}
        assert KEY_FILE.exists()
        assert states.wgmesh.absent("wg0", key=True).result is True
        assert not KEY_FILE.exists()

    def test_absent_of_last_mesh_leaves_no_file(self, states, modules, offer, with_key):
        """After the last mesh no state, lock or outcome file is left, and the formula can start again."""
        offer(wg0=leaf(relays=()), wg1=leaf(mesh="wg1", relays=(), port=51900))
        assert states.wgmesh.joined("mesh", patience=0).result is True
        assert modules.wgmesh.meshes() == ["wg0", "wg1"]
        states.wgmesh.absent("wg0")
        left = {p.name for p in Path("/var/lib/wgmesh").iterdir()}
        assert left == {"wg1", "wg1.lock", "outcomes.json", ".key.lock"}
        assert "wg0" not in json.loads(Path("/var/lib/wgmesh/outcomes.json").read_text())
        states.wgmesh.absent("wg1", key=True)
        assert not Path("/var/lib/wgmesh").exists()
        assert list(Path("/etc/wireguard").iterdir()) == []
        assert states.wgmesh.key_present("key").result is True
        assert states.wgmesh.joined("mesh", patience=0).result is True

    def test_absent_removes_remains_of_failed_apply(self, states, modules, with_key):
        """The state of an apply that failed early is removed: preshared keys and the record of a rollback."""
        folder = Host().state_dir / "wg0"
        folder.joinpath("preshared").mkdir(parents=True)
        folder.joinpath("preshared", "0123456789abcdef").write_text("secret")
        folder.joinpath("rolled_back.json").write_text("{}")
        assert modules.wgmesh.meshes() == ["wg0"]
        KEY_FILE.rename(keys.next_file(Host()))
        assert states.wgmesh.absent("wg0", key=True).changes["key"] == {"old": str(KEY_FILE), "new": None}
        assert (modules.wgmesh.meshes(), folder.exists(), keys.exists(Host())) == ([], False, False)

    @pytest.mark.parametrize("test", [True, False], ids=["test mode", "real run"])
    def test_absent_without_mesh_succeeds(self, states, test):
        """The state succeeds without changes for a mesh that the node never had."""
        ret = states.wgmesh.absent("wg0", test=test)
        assert (ret.result, ret.changes) == (True, {})


def test_private_key_is_in_no_output(states, offer, with_key, caplog, outside):
    """The private key is in no return value, log line or file of the states, except the key file."""
    forms = private_key_forms()
    offer(wg0=relay(leaves=(peer(7),)))
    returned = [
        states.wgmesh.key_present("key").raw,
        states.wgmesh.facts_published("facts").raw,
        states.wgmesh.joined("mesh", patience=0).raw,
        states.wgmesh.absent("wg0", key=False).raw,
    ]
    states.wgmesh.joined("mesh", patience=0)
    files = [p.read_text() for p in Path("/etc/wireguard").glob("*.conf")]
    files += [p.read_text() for p in Path("/var/lib/wgmesh").rglob("*") if p.is_file()]
    output = json.dumps(returned) + caplog.text + "".join(files)
    assert nodeviews.key(7) in output
    for form in forms:
        assert form not in output
