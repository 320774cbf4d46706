"""Preshared keys on real devices: from the master's pillar to the kernel, and what sessions notice of them."""

import base64
import json
import os
import secrets
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import salt.cache
import salt.config
import salt.loader

from saltext_wgmesh.core import names, preshared, sealed
from saltext_wgmesh.master.keyring import Keyring, Secret
from saltext_wgmesh.master.ledger import Head, Ledger
from saltext_wgmesh.minion import apply, keys, running
from saltext_wgmesh.minion.host import Host
from saltext_wgmesh.minion.store import Store
from tests import nodeviews
from tests.lab.wait import wait_until
from tests.nodeviews import leaf, peer, relay

FAR_PORT = 51900
KEYS = {str(preshared.identifier(key)): key for key in (nodeviews.key(101), nodeviews.key(102))}
FIRST, SECOND = sorted(KEYS)


@pytest.fixture
def public_key(machine):
    """The node has its key; this is the public one."""
    return keys.ensure(Host())


@pytest.fixture
def deliver(pillar, public_key):
    """Puts a view into the pillar, and the preshared keys that it names, sealed to this node as the master does."""

    def put(view):
        view = replace(view, keys=(public_key,))
        given = {name: KEYS[name] for name in preshared.identifiers(view)}
        box = sealed.seal(json.dumps(given), "wg0", public_key, secrets.token_bytes(32))
        entry = {**view.as_dict(), "generation": 3, "digest": view.digest()}
        pillar({names.VIEW_KEY: {"wg0": entry}, names.PRESHARED_KEY: {"wg0": box}})
        return view

    return put


def held(outside, device="wg0"):
    """Peer → the preshared key that the kernel (or wireguard-go) has for it."""
    lines = [line.split() for line in outside("wg", "show", device, "preshared-keys").splitlines()]
    return {public: key for public, key in lines if key != "(none)"}


def test_keys_are_set_changed_and_taken_away(modules, deliver, outside):
    """By one push each; the next finds nothing to do. They lie in files that only root can read."""
    for name in (FIRST, SECOND, None):
        deliver(leaf(direct=(peer(7, preshared=name), peer(8)), relays=()))
        assert modules.wgmesh.diff()["wg0"]["changed"] is True
        assert modules.wgmesh.apply()["wg0"]["changed"] is True
        assert held(outside) == ({nodeviews.key(7): KEYS[name]} if name else {})
        assert modules.wgmesh.apply()["wg0"]["changes"] == []
    folder = Store(host=Host(), mesh="wg0").preshared
    assert [(p.name, stat.S_IMODE(p.stat().st_mode)) for p in folder.iterdir()] == [(SECOND, 0o600)]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modules.wgmesh.rollback("wg0")
    assert held(outside) == {nodeviews.key(7): KEYS[SECOND]}


def test_the_state_takes_them_from_the_pillar(loaders, states, deliver, outside, monkeypatch):
    """As the first run of the formula does."""
    view = deliver(leaf(direct=(peer(7, preshared=FIRST),), relays=()))
    box = json.loads(Path(loaders.opts["pillar_roots"]["base"][0], "keys.sls").read_text())
    monkeypatch.setitem(loaders.opts, "pillar", box)
    done = states.wgmesh.interface_present("wg0")
    assert (done["result"], held(outside)) == (True, {nodeviews.key(7): KEYS[FIRST]})
    assert view.digest() == Store(host=Host(), mesh="wg0").view().digest()


def test_keys_that_are_for_another_node_are_an_error_that_says_what_to_do(modules, deliver, pillar, outside):
    """As after this node lost its key, until the master has heard of the new one; nothing is changed."""
    deliver(leaf(direct=(peer(7, preshared=FIRST),), relays=()))
    keys.remove(Host())
    keys.ensure(Host())
    error = modules.wgmesh.apply()["wg0"]["error"]
    assert "were not sealed for the key that it has: apply the formula here" in error
    assert outside("wg", "show", "interfaces") == ""


def test_no_preshared_key_in_anything_that_is_returned_run_or_logged(modules, deliver, caplog, monkeypatch):
    """Nor in any file but its own: not in the files for boot, which only name it."""
    ran = []
    run = Host.run
    monkeypatch.setattr(
        Host, "run", lambda self, *argv, text="": ran.append((argv, text)) or run(self, *argv, text=text)
    )
    caplog.set_level("DEBUG")
    returned = []
    for name in (FIRST, SECOND, FIRST):
        deliver(relay(leaves=(peer(7, preshared=name),)))
        returned += [modules.wgmesh.diff(), modules.wgmesh.apply(), modules.wgmesh.show(), modules.wgmesh.facts()]
    returned += [modules.wgmesh.rollback("wg0"), modules.pillar.items()]
    folders = (Path("/etc/wireguard"), Path("/var/lib/wgmesh"))
    files = [p.read_text() for folder in folders for p in folder.rglob("*") if p.is_file() and p.name not in KEYS]
    said = json.dumps(returned) + repr(ran) + caplog.text + "".join(files) + repr(Store(host=Host(), mesh="wg0").view())
    assert f"/var/lib/wgmesh/wg0/preshared/{SECOND}" in repr(ran)
    assert f"/var/lib/wgmesh/wg0/preshared/{SECOND}" in "".join(files)
    for key in KEYS.values():
        raw = base64.b64decode(key)
        assert not any(form in said for form in (key, raw.hex(), repr(raw)[2:-1]))


# --- sessions ------------------------------------------------------------------------------------------


class Far:
    """The other end of the node's link with n7, on the same machine; it only answers."""

    def __init__(self, outside, node):
        self.outside, self.node = outside, node
        key = Path("/run/far.key")
        key.write_text(outside("wg", "genkey"))
        running.make_device(Host(), "far0wg")
        outside("wg", "set", "far0wg", "listen-port", str(FAR_PORT), "private-key", str(key), "peer", node)
        outside("ip", "link", "set", "far0wg", "up")
        self.public_key = outside("wg", "show", "far0wg", "public-key").strip()

    def give(self, name):
        path = Path("/run/far.psk")
        path.write_text(KEYS[name] if name else "")
        self.outside("wg", "set", "far0wg", "peer", self.node, "preshared-key", str(path))

    def handshake(self):
        return int(self.outside("wg", "show", "far0wg", "latest-handshakes").split()[1])

    def received(self):
        return int(self.outside("wg", "show", "far0wg", "transfer").split()[1])

    def hears(self, seconds=5):
        """Whether a packet comes through the tunnel: it counts 32 bytes and more only if it can be decrypted."""
        before = self.received()
        wait_until(lambda: self.received() > before, seconds, "a keepalive to come through")


@pytest.fixture
def far(machine, outside, public_key):
    return Far(outside, public_key)


def linked(far, name):
    near = peer(7, endpoint=f"127.0.0.1:{FAR_PORT}", keepalive=1, public_key=far.public_key, preshared=name)
    return leaf(direct=(near,), relays=())


def test_a_session_does_not_notice_that_keys_are_set_changed_or_taken_away(modules, deliver, far):
    """At either end first: it counts in the next handshake only."""
    deliver(linked(far, None))
    modules.wgmesh.apply()
    wait_until(far.handshake, 10, "a handshake")
    first = far.handshake()
    for name, far_first in ((FIRST, True), (SECOND, False), (None, True)):
        deliver(linked(far, name))
        if far_first:
            far.give(name)
            far.hears()
        modules.wgmesh.apply()
        far.hears()
        far.give(name)
        far.hears()
        assert far.handshake() == first


def test_a_handshake_needs_the_same_key_at_both_ends(modules, deliver, far):
    """With another there is none; once the node has the right one, the next attempt succeeds."""
    far.give(SECOND)
    deliver(linked(far, FIRST))
    modules.wgmesh.apply()
    received = far.received()
    wait_until(lambda: far.received() > received, 10, "an attempt")
    assert modules.wgmesh.show()["wg0"]["devices"]["wg0"]["peers"]["n7"]["handshake_age"] is None
    deliver(linked(far, SECOND))
    modules.wgmesh.apply()
    wait_until(far.handshake, 15, "a handshake")


# --- boot ----------------------------------------------------------------------------------------------


def test_files_for_boot_restore_the_keys_without_salt(modules, deliver, outside):
    """An apply after the boot finds nothing to do; a key that is lost costs its own link only."""
    view = deliver(leaf(direct=(peer(7, preshared=FIRST), peer(8, preshared=SECOND)), relays=()))
    modules.wgmesh.apply()
    for lost in ((), (FIRST,)):
        outside("ip", "link", "del", "wg0")
        for name in lost:
            (Store(host=Host(), mesh="wg0").preshared / name).unlink()
        outside("wg-quick", "up", "wg0")
        expected = {nodeviews.key(7): KEYS[FIRST], nodeviews.key(8): KEYS[SECOND]}
        assert held(outside) == {k: v for k, v in expected.items() if preshared.identifier(v) not in lost}
        told = apply.apply(Host(), view, given=KEYS).lines
        assert [line for line in told if "peer" in line] == [
            "~ wg0 peer n7: preshared key none -> preshared key set" for _ in lost
        ]


# --- the master's pillar ---------------------------------------------------------------------------------


def test_the_ext_pillar_gives_a_node_its_own_keys_sealed(machine, minion_opts, tmp_path):
    """By Salt's own loader, from a ledger in Salt's own cache; another minion gets nothing of it, and no pillar, ledger
    or other cache of the master holds a secret."""
    opts = {**minion_opts, "pki_dir": str(tmp_path / "pki"), "cachedir": str(tmp_path / "cache"), "cache": "localfs"}
    secret = Secret.make()
    Keyring.of(opts, "wg0").keep(secret)
    node, neighbour = keys.ensure(Host()), nodeviews.key(7)
    key = secret.key("wg0", node, neighbour)
    view = replace(leaf(direct=(peer(7, preshared=preshared.identifier(key)),)), keys=(node,))
    entry = {**view.as_dict(), "digest": view.digest()}
    Ledger(salt.cache.factory(opts)).publish(
        "wg0", Head(generation=1, digests={"n5": view.digest()}), {"n5": entry}, {}
    )
    ext_pillar = salt.loader.pillars(opts, {})["wgmesh"]
    told = ext_pillar("n5", {}, True)
    (private,) = keys.private_keys(Host())
    assert json.loads(sealed.unseal(told[names.PRESHARED_KEY]["wg0"], "wg0", private)) == {
        preshared.identifier(key): key
    }
    assert names.PRESHARED_KEY not in ext_pillar("n6", {}, True)
    kept = [p.read_bytes() for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    assert kept
    assert not any(text.encode() in data for text in (key, secret.text) for data in [*kept, json.dumps(told).encode()])
    assert [stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "pki/wgmesh").rglob("*.secret")] == [0o600]
    assert os.listdir(tmp_path / "pki") == ["wgmesh"]
