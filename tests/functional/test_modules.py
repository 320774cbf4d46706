"""Each execution function of ``wgmesh``, by the real loader on real devices."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from salt.exceptions import CommandExecutionError

from saltext_wgmesh.core import saltkey
from saltext_wgmesh.minion import keys
from saltext_wgmesh.minion.host import Host
from saltext_wgmesh.minion.store import Store
from tests import nodeviews
from tests.functional.conftest import PEM, private_key_forms
from tests.nodeviews import leaf, peer, relay

FUNCTIONS = (
    "facts",
    "public_key",
    "show",
    "diff",
    "apply",
    "rollback",
    "links",
    "forwarded",
    "meshes",
    "enrol",
    "watch_unit",
    "renew_key",
)


@pytest.fixture
def public_key(machine):
    """The node has its key; this is the public one."""
    return keys.ensure(Host())


def dump(outside):
    """What the kernel (or wireguard-go) says of all devices, less private keys and counters."""
    lines = [line.split("\t") for line in outside("wg", "show", "all", "dump").splitlines()]
    return sorted([f[0], *f[2:4]] if len(f) == 5 else [*f[:2], f[3], f[4], f[8]] for f in lines)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_is_documented(modules, name):
    """``salt '*' sys.doc`` shows an example of how to call it."""
    text = modules.sys.doc(f"wgmesh.{name}")[f"wgmesh.{name}"]
    assert re.search(rf"CLI Example:\n\n +salt .* wgmesh\.{name}", text)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("facts", []),
        ("public_key", []),
        ("show", ["mesh"]),
        ("diff", ["mesh"]),
        ("apply", ["mesh", "insists"]),
        ("rollback", ["mesh"]),
        ("links", []),
        ("forwarded", []),
        ("meshes", []),
        ("enrol", []),
        ("watch_unit", []),
        ("renew_key", []),
    ],
)
def test_salt_sees_the_parameters(modules, name, parameters):
    """The shell's wrapper hides no parameter and takes none that Salt makes up."""
    told = modules.sys.argspec(f"wgmesh.{name}")[f"wgmesh.{name}"]
    assert (told["args"] or [], told["varargs"], told["kwargs"]) == (parameters, None, None)


def test_no_other_functions(modules):
    """What the loader finds is just the documented functions."""
    assert sorted(n.partition(".")[2] for n in modules if n.startswith("wgmesh.")) == sorted(FUNCTIONS)


class TestFacts:
    def test_tells_key_and_underlay(self, modules, public_key, outside):
        """The address of the default route comes first, then the others; loopback and link-local don't appear."""
        outside("ip", "address", "add", "10.9.0.4/24", "dev", "eth0")
        outside("ip", "-6", "address", "add", "2001:db8::4/64", "dev", "eth0", "nodad")
        told = modules.wgmesh.facts()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", told.pop("observed_at"))
        assert told == {
            "schema": 1,
            "public_key": public_key,
            "salt_key": saltkey.fingerprint(PEM),
            "underlay": ["192.0.2.1", "10.9.0.4", "2001:db8::4"],
            "networks": ["10.9.0.0/24", "192.0.2.0/24", "2001:db8::/64"],
            "ipv6": True,
        }

    def test_does_not_count_the_mesh_as_underlay(self, modules, offer, public_key):
        """A node's facts are the same before and after it has joined."""
        before = modules.wgmesh.facts()
        offer(wg0=leaf())
        modules.wgmesh.apply()
        after = modules.wgmesh.facts()
        assert {**after, "observed_at": 0} == {**before, "observed_at": 0}

    def test_is_an_error_without_a_key(self, modules, machine):
        """Salt's own error says what makes a key."""
        with pytest.raises(CommandExecutionError, match=r"state\.apply wgmesh"):
            modules.wgmesh.facts()


class TestPublicKey:
    def test_is_the_key_that_devices_get(self, modules, offer, public_key, outside):
        """The function, the device and the facts name one key."""
        offer(wg0=leaf())
        modules.wgmesh.apply()
        assert modules.wgmesh.public_key() == public_key
        assert outside("wg", "show", "wg0", "public-key").strip() == public_key
        assert modules.wgmesh.facts()["public_key"] == public_key

    def test_is_none_without_a_key(self, modules, machine):
        """A node that was never set up has no key, and that is no error."""
        assert modules.wgmesh.public_key() is None


class TestApply:
    def test_says_what_it_did(self, modules, offer, public_key):
        """By mesh: digest and generation of the view, and the changes; then the same with none."""
        view = leaf(direct=(peer(7, endpoint="192.0.2.7:51820"),))
        offer(wg0=view)
        first = modules.wgmesh.apply()
        assert sorted(first) == ["facts", "wg0"]
        assert first["facts"]["public_key"] == public_key
        assert (first["wg0"]["digest"], first["wg0"]["generation"]) == (view.digest(), 3)
        assert first["wg0"]["changed"] is True
        assert "+ routes 10.100.0.7/32: wg0 from 10.100.0.5" in first["wg0"]["changes"]
        second = modules.wgmesh.apply()
        assert second["wg0"] == {"digest": view.digest(), "generation": 3, "changed": False, "changes": []}

    def test_fetches_the_pillar_anew(self, modules, offer, public_key, outside):
        """A view that the master changed since the loader started is what is applied."""
        offer(wg0=leaf(direct=(peer(7),)))
        modules.wgmesh.apply()
        offer(wg0=leaf(direct=(peer(7), peer(8))))
        assert modules.wgmesh.apply()["wg0"]["changed"] is True
        assert nodeviews.key(8) in outside("wg", "show", "wg0", "peers")

    def test_leaves_a_mesh_alone_that_the_pillar_does_not_mention(self, modules, offer, public_key, outside):
        """An empty pillar, and one that lacks a mesh, remove nothing."""
        offer(wg0=leaf(relays=()), wg1=leaf(mesh="wg1", relays=(), port=51900))
        modules.wgmesh.apply()
        before = dump(outside)
        offer(wg1=leaf(mesh="wg1", relays=(), port=51900))
        modules.wgmesh.apply()
        offer()
        assert list(modules.wgmesh.apply()) == ["facts"]
        assert dump(outside) == before

    def test_keeps_what_runs_when_there_is_no_place_now(self, modules, offer, public_key, outside):
        """A reason alone is acknowledged and removes nothing; with ``removed`` the node leaves."""
        offer(wg0=leaf())
        modules.wgmesh.apply()
        before = dump(outside)
        offer(wg0={"reason": "it has no facts", "digest": "reason: it has no facts", "generation": 4})
        told = modules.wgmesh.apply()["wg0"]
        assert told == {
            "digest": "reason: it has no facts",
            "generation": 4,
            "reason": "it has no facts",
            "changed": False,
            "changes": [],
        }
        assert dump(outside) == before
        offer(wg0={"reason": "it is not in the policy", "removed": True, "digest": "removed: x"})
        told = modules.wgmesh.apply()["wg0"]
        assert (told["changed"], told["digest"]) == (True, "removed: x")
        assert "- wg0: present" in told["changes"]
        assert dump(outside) == []
        assert modules.wgmesh.apply()["wg0"]["changed"] is False

    def test_one_mesh_by_name(self, modules, offer, public_key, outside):
        """With a name only that mesh is touched."""
        offer(wg0=leaf(relays=()), wg1=leaf(mesh="wg1", relays=(), port=51900))
        assert sorted(modules.wgmesh.apply("wg1")) == ["facts", "wg1"]
        assert outside("wg", "show", "interfaces").split() == ["wg1"]

    def test_a_mesh_that_is_not_offered_is_an_error_by_name(self, modules, offer, public_key):
        """Whoever misspells the mesh is told, and told where to look."""
        offer(wg0=leaf())
        error = modules.wgmesh.apply(mesh="wg7")["wg7"]["error"]
        assert error == "the master offers this node no view of wg7: 'salt-run wgmesh.plan' says why"

    def test_a_failure_of_one_mesh_is_a_value(self, modules, offer, public_key, outside):
        """The mesh that fails says why and gives no digest; the other is applied."""
        outside("ip", "link", "add", "wg0", "type", "bridge")
        offer(wg0=leaf(relays=()), wg1=leaf(mesh="wg1", relays=(), port=51900))
        told = modules.wgmesh.apply()
        assert "wg0 exists" in told["wg0"]["error"]
        assert "digest" not in told["wg0"]
        assert told["wg1"]["changed"] is True

    def test_without_a_key_is_a_value_too(self, modules, offer, machine):
        """A node without a key says so for each mesh, and has no facts to give."""
        offer(wg0=leaf())
        told = modules.wgmesh.apply()
        assert list(told) == ["wg0"]
        assert "state.apply wgmesh" in told["wg0"]["error"]


class TestRenewKey:
    def test_makes_a_key_that_nothing_runs_yet(self, modules, offer, public_key, outside):
        """It is told with the facts; a second call makes no other."""
        offer(wg0=leaf())
        modules.wgmesh.apply()
        told = modules.wgmesh.renew_key()
        assert told["public_key"] == public_key != told["next_key"]
        assert modules.wgmesh.renew_key()["next_key"] == told["next_key"] == modules.wgmesh.facts()["next_key"]
        assert {line.split()[1] for line in outside("wg", "show", "all", "public-key").splitlines()} == {public_key}

    def test_is_run_once_the_view_says_so(self, modules, offer, public_key, outside):
        """All interfaces run it then, and its file is the key file: nothing else is there that could run."""
        offer(wg0=leaf())
        modules.wgmesh.apply()
        new = modules.wgmesh.renew_key()["next_key"]
        offer(wg0=replace(leaf(), turn_to=new))
        done = modules.wgmesh.apply()
        assert (done["facts"]["public_key"], done["facts"].get("next_key")) == (new, None)
        assert {line.split()[1] for line in outside("wg", "show", "all", "public-key").splitlines()} == {new}
        assert outside("sh", "-c", "wg pubkey < /etc/wireguard/wgmesh.key").strip() == new
        assert not keys.next_file(Host()).exists()

    def test_a_key_file_that_was_lost_is_replaced_by_the_next_apply(self, modules, offer, public_key, outside):
        """The interfaces run on with the old key, which is told as the present one, until the view names the new."""
        offer(wg0=leaf())
        modules.wgmesh.apply()
        Host().key_file.unlink()
        told = modules.wgmesh.apply()["facts"]
        assert told["public_key"] == public_key
        assert {line.split()[1] for line in outside("wg", "show", "all", "public-key").splitlines()} == {public_key}
        offer(wg0=replace(leaf(), turn_to=told["next_key"]))
        after = modules.wgmesh.apply()["facts"]
        assert (after["public_key"], "next_key" in after) == (told["next_key"], False)


def test_diff_foretells_just_what_apply_does(modules, offer, public_key, outside):
    """The lines of diff are those of the apply after it, and diff alone changes nothing."""
    offer(wg0=relay(leaves=(peer(7),)))
    modules.wgmesh.apply()
    offer(wg0=relay(leaves=(peer(7, "10.100.0.7/32", "192.168.7.0/24"), peer(8)), trunks=(2, 3)))
    before = dump(outside)
    told = modules.wgmesh.diff()
    assert dump(outside) == before
    assert told["wg0"]["changed"] is True
    assert modules.wgmesh.apply()["wg0"] == told["wg0"]


def test_rollback_goes_back_and_forth(modules, offer, public_key, outside):
    """The view before is applied again; a second rollback returns to the later one."""
    first, second = leaf(direct=(peer(7),)), leaf(direct=(peer(7), peer(8)))
    for view in (first, second):
        offer(wg0=view)
        modules.wgmesh.apply()
    back = modules.wgmesh.rollback("wg0")
    assert (back["digest"], back["changed"]) == (first.digest(), True)
    assert nodeviews.key(8) not in outside("wg", "show", "wg0", "peers")
    assert modules.wgmesh.rollback("wg0")["digest"] == second.digest()
    assert nodeviews.key(8) in outside("wg", "show", "wg0", "peers")


def test_rollback_without_an_earlier_view_is_an_error(modules, offer, public_key):
    """Where there is nothing to go back to, Salt's own error says so."""
    offer(wg0=leaf())
    modules.wgmesh.apply()
    with pytest.raises(CommandExecutionError, match="no earlier view of wg0"):
        modules.wgmesh.rollback("wg0")


def test_show_tells_devices_peers_and_routes(modules, offer, public_key):
    """Peers go by their nodes' names; one that never shook hands has no age."""
    view = relay(leaves=(peer(7, endpoint="192.0.2.7:51820", keepalive=25),))
    offer(wg0=view)
    modules.wgmesh.apply()
    told = modules.wgmesh.show()["wg0"]
    assert told["digest"] == view.digest()
    assert sorted(told["devices"]) == ["wg0", "wg0-t2"]
    access = told["devices"]["wg0"]
    assert access["addresses"] == ["10.100.0.1/32", "fd00:64::1/128"]
    assert access["peers"]["n7"]["endpoint"] == "192.0.2.7:51820"
    assert access["peers"]["n7"]["handshake_age"] is None
    assert access["peers"]["n7"]["allowed_ips"] == ["10.100.0.7/32"]
    assert "10.100.0.0/16: wg0-t2" in told["routes"]
    assert len(told["rules"]) == 2
    assert modules.wgmesh.show("other") == {}


def test_no_private_key_in_anything_that_is_returned_run_or_logged(modules, offer, public_key, caplog, monkeypatch):
    """The private key is in no return value, argument list, standard input of a command, log line or written file."""
    ran = []
    run = Host.run
    monkeypatch.setattr(
        Host, "run", lambda self, *argv, text="": ran.append((argv, text)) or run(self, *argv, text=text)
    )
    offer(wg0=relay(leaves=(peer(7),)))
    returned = [modules.wgmesh.diff(), modules.wgmesh.apply(), modules.wgmesh.show(), modules.wgmesh.facts()]
    offer(wg0=relay(leaves=(peer(7), peer(8))))
    returned += [modules.wgmesh.apply(), modules.wgmesh.rollback("wg0"), modules.wgmesh.public_key()]
    returned += [modules.wgmesh.renew_key()]
    forms = [*private_key_forms(), *private_key_forms(keys.next_file(Host()))]
    offer(wg0=replace(relay(), turn_to=keys.next_key(Host())))
    returned += [modules.wgmesh.apply()]
    files = [p.read_text() for p in Path("/etc/wireguard").glob("*.conf")]
    files += [p.read_text() for p in Path("/var/lib/wgmesh").rglob("*") if p.is_file()]
    said = json.dumps(returned) + repr(ran) + caplog.text + "".join(files) + repr(Store(host=Host(), mesh="wg0").view())
    assert str(Host().key_file) in repr(ran)
    assert str(keys.next_file(Host())) in repr(ran)
    for form in forms:
        assert form not in said
