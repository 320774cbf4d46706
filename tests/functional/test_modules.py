"""Each execution function of ``wgmesh``, by the real loader on real devices."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from salt.exceptions import CommandExecutionError
from saltfactories.utils.functional import Loaders

from saltext_wgmesh.core.inputs import salt_key
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.state.store import Store
from saltext_wgmesh.minion.system.host import Host
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
    "replace_key",
)


@pytest.fixture
def public_key(machine):
    """Make the node's key and return its public half."""
    return keys.ensure(Host())


def dump(outside):
    """Return the kernel's (or wireguard-go's) configuration of all devices, without private keys and counters."""
    lines = [line.split("\t") for line in outside("wg", "show", "all", "dump").splitlines()]
    return sorted([f[0], *f[2:4]] if len(f) == 5 else [*f[:2], f[3], f[4], f[8]] for f in lines)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_is_documented(modules, name):
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
        ("apply", ["mesh", "retry_rolled_back", "new_ledger"]),
        ("rollback", ["mesh"]),
        ("links", []),
        ("forwarded", []),
        ("meshes", []),
        ("enrol", []),
        ("watch_unit", []),
        ("renew_key", []),
        ("replace_key", []),
    ],
    ids=FUNCTIONS,
)
def test_function_has_its_parameters(modules, name, parameters):
    """The shell's wrapper hides no parameter and takes none that Salt makes up."""
    spec = modules.sys.argspec(f"wgmesh.{name}")[f"wgmesh.{name}"]
    assert (spec["args"] or [], spec["varargs"], spec["kwargs"]) == (parameters, None, None)


def test_loader_finds_no_other_function(modules):
    """The loader finds exactly the functions of FUNCTIONS."""
    assert sorted(n.partition(".")[2] for n in modules if n.startswith("wgmesh.")) == sorted(FUNCTIONS)


class TestFacts:
    def test_facts_have_key_and_underlay(self, modules, public_key, outside):
        """The address of the default route comes first. Loopback and link-local addresses are left out."""
        outside("ip", "address", "add", "10.9.0.4/24", "dev", "eth0")
        outside("ip", "-6", "address", "add", "2001:db8::4/64", "dev", "eth0", "nodad")
        result = modules.wgmesh.facts()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", result.pop("observed_at"))
        assert result == {
            "schema": 1,
            "public_key": public_key,
            "salt_key": salt_key.fingerprint(PEM),
            "underlay": ["192.0.2.1", "10.9.0.4", "2001:db8::4"],
            "networks": ["10.9.0.0/24", "192.0.2.0/24", "2001:db8::/64"],
            "lans": ["10.9.0.0/24", "192.0.2.0/24", "2001:db8::/64"],
            "ipv6": True,
        }

    def test_facts_leave_out_mesh_addresses(self, modules, offer, public_key):
        """The facts are the same before and after the node has joined: mesh addresses are no underlay."""
        before = modules.wgmesh.facts()
        offer(wg0=leaf())
        modules.wgmesh.apply()
        after = modules.wgmesh.facts()
        assert {**after, "observed_at": 0} == {**before, "observed_at": 0}

    def test_facts_without_key_are_an_error(self, modules, machine):
        """The error names the command that makes a key."""
        with pytest.raises(CommandExecutionError, match=r"state\.apply wgmesh"):
            modules.wgmesh.facts()


class TestPublicKey:
    def test_public_key_is_that_of_devices(self, modules, offer, public_key, outside):
        """The function, the device and the facts have the same key."""
        offer(wg0=leaf())
        modules.wgmesh.apply()
        assert modules.wgmesh.public_key() == public_key
        assert outside("wg", "show", "wg0", "public-key").strip() == public_key
        assert modules.wgmesh.facts()["public_key"] == public_key

    def test_public_key_without_key_is_none(self, modules, machine):
        """A node that was never set up has no key. The function returns None instead of an error."""
        assert modules.wgmesh.public_key() is None


class TestApply:
    def test_apply_returns_digest_and_changes(self, modules, offer, public_key):
        """The result per mesh is digest and generation of the view, and the changes. A second apply has no changes."""
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

    def test_apply_fetches_new_pillar(self, modules, offer, public_key, outside):
        """The applied view is the master's present one, also if it changed after the loader's start."""
        offer(wg0=leaf(direct=(peer(7),)))
        modules.wgmesh.apply()
        offer(wg0=leaf(direct=(peer(7), peer(8))))
        assert modules.wgmesh.apply()["wg0"]["changed"] is True
        assert nodeviews.key(8) in outside("wg", "show", "wg0", "peers")

    def test_apply_keeps_mesh_missing_in_pillar(self, modules, offer, public_key, outside):
        """An empty pillar removes nothing, and neither does one that lacks a mesh."""
        offer(wg0=leaf(relays=()), wg1=leaf(mesh="wg1", relays=(), port=51900))
        modules.wgmesh.apply()
        before = dump(outside)
        offer(wg1=leaf(mesh="wg1", relays=(), port=51900))
        modules.wgmesh.apply()
        offer()
        assert list(modules.wgmesh.apply()) == ["facts"]
        assert dump(outside) == before

    def test_apply_keeps_interfaces_given_a_reason(self, modules, offer, public_key, outside):
        """A reason in place of a view is acknowledged and removes nothing. With ``removed`` the node leaves."""
        offer(wg0=leaf())
        modules.wgmesh.apply()
        before = dump(outside)
        offer(wg0={"reason": "it has no facts", "digest": "reason: it has no facts", "generation": 4})
        result = modules.wgmesh.apply()["wg0"]
        assert result == {
            "digest": "reason: it has no facts",
            "generation": 4,
            "reason": "it has no facts",
            "changed": False,
            "changes": [],
        }
        assert dump(outside) == before
        offer(wg0={"reason": "it is not in the policy", "removed": True, "digest": "removed: x"})
        result = modules.wgmesh.apply()["wg0"]
        assert (result["changed"], result["digest"]) == (True, "removed: x")
        assert "- wg0: present" in result["changes"]
        assert dump(outside) == []
        assert modules.wgmesh.apply()["wg0"]["changed"] is False

    def test_apply_by_name_changes_one_mesh(self, modules, offer, public_key, outside):
        """An apply with a mesh name does not touch other meshes."""
        offer(wg0=leaf(relays=()), wg1=leaf(mesh="wg1", relays=(), port=51900))
        assert sorted(modules.wgmesh.apply("wg1")) == ["facts", "wg1"]
        assert outside("wg", "show", "interfaces").split() == ["wg1"]

    def test_apply_of_unknown_mesh_is_an_error(self, modules, offer, public_key):
        """A misspelt mesh name is an error that names the command to look it up."""
        offer(wg0=leaf())
        error = modules.wgmesh.apply(mesh="wg7")["wg7"]["error"]
        assert error == "the pillar of this node has no view of wg7: 'salt-run wgmesh.plan' says why"

    def test_apply_failure_of_mesh_is_a_value(self, modules, offer, public_key, outside):
        """The failed mesh has an error and no digest. The other mesh is applied."""
        outside("ip", "link", "add", "wg0", "type", "bridge")
        offer(wg0=leaf(relays=()), wg1=leaf(mesh="wg1", relays=(), port=51900))
        result = modules.wgmesh.apply()
        assert "wg0 exists" in result["wg0"]["error"]
        assert "digest" not in result["wg0"]
        assert result["wg1"]["changed"] is True

    def test_apply_without_key_is_a_value(self, modules, offer, machine):
        """Without a key each mesh has an error, and there are no facts."""
        offer(wg0=leaf())
        result = modules.wgmesh.apply()
        assert list(result) == ["wg0"]
        assert "state.apply wgmesh" in result["wg0"]["error"]


class TestRenewKey:
    def test_new_key_is_not_used_yet(self, modules, offer, public_key, outside):
        """The new key is in the facts, and the interfaces still use the old one. A second call makes no further key."""
        offer(wg0=leaf())
        modules.wgmesh.apply()
        result = modules.wgmesh.renew_key()
        assert result["public_key"] == public_key != result["next_key"]
        assert modules.wgmesh.renew_key()["next_key"] == result["next_key"] == modules.wgmesh.facts()["next_key"]
        assert {line.split()[1] for line in outside("wg", "show", "all", "public-key").splitlines()} == {public_key}

    def test_new_key_is_used_by_new_view(self, modules, offer, public_key, outside):
        """A view with ``activate_key`` moves all interfaces to the new key. Its file replaces the key file."""
        offer(wg0=leaf())
        modules.wgmesh.apply()
        new = modules.wgmesh.renew_key()["next_key"]
        offer(wg0=replace(leaf(), activate_key=new))
        done = modules.wgmesh.apply()
        assert (done["facts"]["public_key"], done["facts"].get("next_key")) == (new, None)
        assert {line.split()[1] for line in outside("wg", "show", "all", "public-key").splitlines()} == {new}
        assert outside("sh", "-c", "wg pubkey < /etc/wireguard/wgmesh.key").strip() == new
        assert not keys.next_file(Host()).exists()

    def test_lost_key_file_is_replaced_by_apply(self, modules, offer, public_key, outside):
        """The interfaces use the old key, and the facts have it as the present one, until a view activates the new."""
        offer(wg0=leaf())
        modules.wgmesh.apply()
        Host().key_file.unlink()
        result = modules.wgmesh.apply()["facts"]
        assert result["public_key"] == public_key
        assert {line.split()[1] for line in outside("wg", "show", "all", "public-key").splitlines()} == {public_key}
        offer(wg0=replace(leaf(), activate_key=result["next_key"]))
        after = modules.wgmesh.apply()["facts"]
        assert (after["public_key"], "next_key" in after) == (result["next_key"], False)


def test_diff_predicts_changes_of_apply(modules, offer, public_key, outside):
    """The changes of diff are those of the next apply. diff itself changes nothing."""
    offer(wg0=relay(leaves=(peer(7),)))
    modules.wgmesh.apply()
    offer(wg0=relay(leaves=(peer(7, "10.100.0.7/32", "192.168.7.0/24"), peer(8)), trunks=(2, 3)))
    before = dump(outside)
    result = modules.wgmesh.diff()
    assert dump(outside) == before
    assert result["wg0"]["changed"] is True
    assert modules.wgmesh.apply()["wg0"] == result["wg0"]


def test_rollback_swaps_last_two_views(modules, offer, public_key, outside):
    """A rollback applies the view before. A second rollback returns to the later one."""
    first, second = leaf(direct=(peer(7),)), leaf(direct=(peer(7), peer(8)))
    for view in (first, second):
        offer(wg0=view)
        modules.wgmesh.apply()
    back = modules.wgmesh.rollback("wg0")
    assert (back["digest"], back["changed"]) == (first.digest(), True)
    assert nodeviews.key(8) not in outside("wg", "show", "wg0", "peers")
    assert modules.wgmesh.rollback("wg0")["digest"] == second.digest()
    assert nodeviews.key(8) in outside("wg", "show", "wg0", "peers")


def test_rollback_without_earlier_view_is_an_error(modules, offer, public_key):
    """A rollback without an earlier view raises CommandExecutionError."""
    offer(wg0=leaf())
    modules.wgmesh.apply()
    with pytest.raises(CommandExecutionError, match="no earlier view of wg0"):
        modules.wgmesh.rollback("wg0")


def test_show_lists_devices_peers_and_routes(modules, offer, public_key):
    """Peers are listed by node name. A peer without a handshake has no handshake age."""
    view = relay(leaves=(peer(7, endpoint="192.0.2.7:51820", keepalive=25),))
    offer(wg0=view)
    modules.wgmesh.apply()
    result = modules.wgmesh.show()["wg0"]
    assert result["digest"] == view.digest()
    assert sorted(result["devices"]) == ["wg0", "wg0-t2"]
    access = result["devices"]["wg0"]
    assert access["addresses"] == ["10.100.0.1/32", "fd00:64::1/128"]
    assert access["peers"]["n7"]["endpoint"] == "192.0.2.7:51820"
    assert access["peers"]["n7"]["handshake_age"] is None
    assert access["peers"]["n7"]["allowed_ips"] == ["10.100.0.7/32"]
    assert "10.100.0.0/16: wg0-t2" in result["routes"]
    assert len(result["rules"]) == 2
    assert modules.wgmesh.show("other") == {}


def test_private_key_is_in_no_output(modules, offer, public_key, caplog, monkeypatch):
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
    offer(wg0=replace(relay(), activate_key=keys.next_key(Host())))
    returned += [modules.wgmesh.apply()]
    files = [p.read_text() for p in Path("/etc/wireguard").glob("*.conf")]
    files += [p.read_text() for p in Path("/var/lib/wgmesh").rglob("*") if p.is_file()]
    output = (
        json.dumps(returned) + repr(ran) + caplog.text + "".join(files) + repr(Store(host=Host(), mesh="wg0").view())
    )
    assert str(Host().key_file) in repr(ran)
    assert str(keys.next_file(Host())) in repr(ran)
    for form in forms:
        assert form not in output


class TestOnlyTests:
    """A minion whose configuration has ``test: True``."""

    @pytest.fixture
    def tests_only(self, minion_opts):
        """Return the loaders of a minion that is configured so."""
        return Loaders({**minion_opts, "test": True})

    @pytest.fixture
    def modules(self, tests_only, machine):
        """Return its execution functions."""
        return tests_only.modules

    def test_push_changes_nothing(self, modules, offer, public_key, outside):
        """The return says so, and what would change; it has no digest, which would acknowledge the view."""
        offer(wg0=leaf())
        before = dump(outside)
        result = modules.wgmesh.apply()
        assert "test: True" in result["wg0"]["error"]
        assert result["wg0"]["test"] is True
        assert "digest" not in result["wg0"]
        assert result["wg0"]["changes"]
        assert dump(outside) == before
        assert modules.wgmesh.meshes() == []

    @pytest.mark.parametrize("call", ["renew_key", "rollback"])
    def test_other_change_is_refused(self, modules, public_key, call):
        """No key is made, and no view is restored."""
        with pytest.raises(CommandExecutionError, match="test: True"):
            getattr(modules.wgmesh, call)(*(["wg0"] if call == "rollback" else []))
        assert keys.public_key(Host()) == public_key
