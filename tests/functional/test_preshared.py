"""Preshared keys on real devices: from the master's pillar to the kernel, and their effect on sessions."""

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

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.keys import psk, sealed_box
from saltext_wgmesh.master.records.assignment import Assignment
from saltext_wgmesh.master.records.ledger import Ledger
from saltext_wgmesh.master.records.mesh_head import MeshHead
from saltext_wgmesh.master.records.psk_secrets import PskSecrets, Secret
from saltext_wgmesh.minion.apply import apply, executor
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.state.store import Store
from saltext_wgmesh.minion.system.host import Host
from tests import nodeviews
from tests.lab.wait import wait_until
from tests.nodeviews import leaf, peer, relay
from tests.unit.harness.generations import generation

FAR_PORT = 51900
KEYS = {str(psk.psk_id(key)): key for key in (nodeviews.key(101), nodeviews.key(102))}
FIRST, SECOND = sorted(KEYS)


@pytest.fixture
def public_key(machine):
    """Make the node's key and return its public half."""
    return keys.ensure(Host())


@pytest.fixture
def deliver(pillar, public_key):
    """Put a view into the pillar, and the preshared keys that it names, sealed for this node as the master does."""

    def put(view):
        view = replace(view, keys=(public_key,))
        given = {name: KEYS[name] for name in psk.psk_ids(view)}
        box = sealed_box.seal(json.dumps(given), "wg0", public_key, secrets.token_bytes(32))
        entry = {**view.as_dict(), "generation": 3, "digest": view.digest()}
        pillar({constants.PILLAR_VIEWS: {"wg0": entry}, constants.PILLAR_PSKS: {"wg0": box}})
        return view

    return put


def held(outside, device="wg0"):
    """Return peer → the preshared key that the kernel (or wireguard-go) has for it."""
    lines = [line.split() for line in outside("wg", "show", device, "preshared-keys").splitlines()]
    return {public: key for public, key in lines if key != "(none)"}


def test_preshared_keys_are_set_changed_and_removed(modules, deliver, outside):
    """Each change takes one apply, and the next one finds nothing to do. Only root can read the key files."""
    for name in (FIRST, SECOND, None):
        deliver(leaf(direct=(peer(7, preshared=name), peer(8)), relays=()))
        assert modules.wgmesh.diff()["wg0"]["changed"] is True
        assert modules.wgmesh.apply()["wg0"]["changed"] is True
        assert held(outside) == ({nodeviews.key(7): KEYS[name]} if name else {})
        assert modules.wgmesh.apply()["wg0"]["changes"] == []
    folder = Store(host=Host(), mesh="wg0").psk_dir
    assert [(p.name, stat.S_IMODE(p.stat().st_mode)) for p in folder.iterdir()] == [(SECOND, 0o600)]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modules.wgmesh.rollback("wg0")
    assert held(outside) == {nodeviews.key(7): KEYS[SECOND]}


def test_state_takes_preshared_keys_from_pillar(loaders, states, deliver, outside, monkeypatch):
    """``interface_present`` reads the preshared keys from the pillar, as in the first run of the formula."""
    view = deliver(leaf(direct=(peer(7, preshared=FIRST),), relays=()))
    box = json.loads(Path(loaders.opts["pillar_roots"]["base"][0], "keys.sls").read_text())
    monkeypatch.setitem(loaders.opts, "pillar", box)
    done = states.wgmesh.interface_present("wg0", patience=0)
    assert (done["result"], held(outside)) == (True, {nodeviews.key(7): KEYS[FIRST]})
    assert view.digest() == Store(host=Host(), mesh="wg0").view().digest()


def test_keys_sealed_for_another_are_an_error(modules, deliver, pillar, outside):
    """The error names the command to run, and nothing is changed. This happens after the node lost its private key."""
    deliver(leaf(direct=(peer(7, preshared=FIRST),), relays=()))
    keys.remove_keys(Host())
    keys.ensure(Host())
    error = modules.wgmesh.apply()["wg0"]["error"]
    assert "were not sealed for the key that it has: apply the formula here" in error
    assert outside("wg", "show", "interfaces") == ""


def test_preshared_key_is_in_no_output(modules, deliver, caplog, monkeypatch):
    """Preshared keys are in no return value, command line, log line or file except their own files."""
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
    output = (
        json.dumps(returned) + repr(ran) + caplog.text + "".join(files) + repr(Store(host=Host(), mesh="wg0").view())
    )
    assert f"/var/lib/wgmesh/wg0/preshared/{SECOND}" in repr(ran)
    assert f"/var/lib/wgmesh/wg0/preshared/{SECOND}" in "".join(files)
    for key in KEYS.values():
        raw = base64.b64decode(key)
        assert not any(form in output for form in (key, raw.hex(), repr(raw)[2:-1]))


# --- sessions ------------------------------------------------------------------------------------------


class Far:
    """The other end of the node's link with n7, on the same machine. It only answers."""

    def __init__(self, outside, node):
        self.outside, self.node = outside, node
        key = Path("/run/far.key")
        key.write_text(outside("wg", "genkey"))
        executor.create_device(Host(), "far0wg")
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

    def await_packet(self, seconds=5):
        """Wait for a packet through the tunnel. WireGuard counts it only if it can be decrypted."""
        before = self.received()
        wait_until(lambda: self.received() > before, seconds, "a keepalive to come through")


@pytest.fixture
def far(machine, outside, public_key):
    return Far(outside, public_key)


def linked(far, name):
    near = peer(7, endpoint=f"127.0.0.1:{FAR_PORT}", keepalive=1, public_key=far.public_key, preshared=name)
    return leaf(direct=(near,), relays=())


def test_session_survives_change_of_preshared_key(modules, deliver, far):
    """Either end changes its key first. The session goes on: a preshared key counts in the next handshake only."""
    deliver(linked(far, None))
    modules.wgmesh.apply()
    wait_until(far.handshake, 10, "a handshake")
    first = far.handshake()
    for name, far_first in ((FIRST, True), (SECOND, False), (None, True)):
        deliver(linked(far, name))
        if far_first:
            far.give(name)
            far.await_packet()
        modules.wgmesh.apply()
        far.await_packet()
        far.give(name)
        far.await_packet()
        assert far.handshake() == first


def test_handshake_with_different_keys_fails(modules, deliver, far):
    """No handshake succeeds while the ends have different keys. With the same key the next attempt does."""
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


def test_boot_files_restore_preshared_keys(modules, deliver, outside):
    """wg-quick restores the keys at boot without Salt. A lost key file costs its own link only."""
    view = deliver(leaf(direct=(peer(7, preshared=FIRST), peer(8, preshared=SECOND)), relays=()))
    modules.wgmesh.apply()
    for lost in ((), (FIRST,)):
        outside("ip", "link", "del", "wg0")
        for name in lost:
            (Store(host=Host(), mesh="wg0").psk_dir / name).unlink()
        outside("wg-quick", "up", "wg0")
        expected = {nodeviews.key(7): KEYS[FIRST], nodeviews.key(8): KEYS[SECOND]}
        assert held(outside) == {k: v for k, v in expected.items() if psk.psk_id(v) not in lost}
        lines = apply.apply(Host(), view, psks=KEYS).lines
        assert [line for line in lines if "peer" in line] == [
            "~ wg0 peer n7: preshared key none -> preshared key set" for _ in lost
        ]


# --- the master's pillar ---------------------------------------------------------------------------------


def test_ext_pillar_seals_keys_for_their_node(machine, minion_opts, tmp_path):
    """A node gets its own keys, sealed for it, and another minion gets none.

    No pillar, ledger or other cache of the master holds a secret. The ext_pillar comes from Salt's own loader.
    """
    opts = {**minion_opts, "pki_dir": str(tmp_path / "pki"), "cachedir": str(tmp_path / "cache"), "cache": "localfs"}
    secret = Secret.make()
    PskSecrets.of(opts, "wg0").save(secret)
    node, neighbour = keys.ensure(Host()), nodeviews.key(7)
    key = secret.key("wg0", node, neighbour)
    view = replace(leaf(direct=(peer(7, preshared=psk.psk_id(key)),)), keys=(node,))
    assignment = Assignment.of_view(view)
    head = MeshHead(generation=1, digests={"n5": assignment.digest})
    Ledger(salt.cache.factory(opts)).publish("wg0", head, {"n5": assignment}, generation())
    ext_pillar = salt.loader.pillars(opts, {})["wgmesh"]
    compiled = ext_pillar("n5", {}, True)
    (private,) = keys.private_keys(Host())
    assert json.loads(sealed_box.open_sealed(compiled[constants.PILLAR_PSKS]["wg0"], "wg0", private)) == {
        psk.psk_id(key): key
    }
    assert constants.PILLAR_PSKS not in ext_pillar("n6", {}, True)
    kept = [p.read_bytes() for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    assert kept
    assert not any(
        text.encode() in data for text in (key, secret.text) for data in [*kept, json.dumps(compiled).encode()]
    )
    assert [stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "pki/wgmesh").rglob("*.secret")] == [0o600]
    assert os.listdir(tmp_path / "pki") == ["wgmesh"]
