"""Preshared keys in an apply: they are set, replaced and deleted, and shown nowhere."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.minion.apply import apply
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.state.store import Store
from tests.nodeviews import key, leaf, peer
from tests.unit.harness.fakehost import FakeHost
from tests.unit.harness.nodes import FIRST_PSK, PSKS, SECOND_PSK, psk_files_of, with_own_key


def test_psk_changes_are_described_without_secrets(host: FakeHost) -> None:
    """Only the PSK of that peer changes. The node also keeps the PSK of the previous view."""
    views = [
        with_own_key(host, leaf(direct=(peer(7, preshared=name), peer(8))))
        for name in (None, FIRST_PSK, SECOND_PSK, None)
    ]
    apply.apply(host, views[0])
    told = []
    for view in views[1:]:
        host.kernel.touched.clear()
        told += [line for line in apply.apply(host, view, psks=PSKS).lines if "boot" not in line]
        assert host.kernel.touched == [("wg0", key(7))]
    assert told == [
        "~ wg0 peer n7: preshared key none -> preshared key set",
        "~ wg0 peer n7: preshared key set -> preshared key another",
        "~ wg0 peer n7: preshared key set -> preshared key none",
    ]
    assert host.kernel.devices["wg0"].peers[key(7)].preshared is None
    assert psk_files_of(host) == {SECOND_PSK: PSKS[SECOND_PSK]}
    assert not any(secret in repr(host.kernel.ran) for secret in PSKS.values())


def test_rollback_and_drift_use_stored_psks(host: FakeHost) -> None:
    """Neither needs the master. A PSK that an administrator deleted is drift."""
    first, second = (with_own_key(host, leaf(direct=(peer(7, preshared=name),))) for name in (FIRST_PSK, SECOND_PSK))
    apply.apply(host, first, psks=PSKS)
    apply.apply(host, second, psks=PSKS)
    apply.rollback(host, "wg0")
    assert host.kernel.devices["wg0"].peers[key(7)].preshared == PSKS[FIRST_PSK]
    host.kernel.devices["wg0"].peers[key(7)].preshared = None
    assert apply.apply(host, first).lines == ["~ wg0 peer n7: preshared key none -> preshared key set"]


def test_missing_psk_is_error_before_changes(host: FakeHost) -> None:
    """The error names the peers and the remedy. A damaged PSK file counts as missing, and is replaced."""
    view = with_own_key(host, leaf(direct=(peer(7, preshared=FIRST_PSK),)))
    with pytest.raises(HostError, match=r"the preshared keys with n7 are neither in this node's pillar nor on it"):
        apply.apply(host, view)
    assert (host.kernel.devices, psk_files_of(host)) == ({}, {})
    apply.apply(host, view, psks=PSKS)
    (Store(host=host, mesh="wg0").psk_dir / FIRST_PSK).write_text(PSKS[FIRST_PSK][:20])
    with pytest.raises(HostError, match="n7"):
        apply.apply(host, view)
    apply.apply(host, view, psks=PSKS)
    assert psk_files_of(host) == {FIRST_PSK: PSKS[FIRST_PSK]}


def test_activated_key_and_psks_are_one_command(host: FakeHost) -> None:
    """A handshake between two commands would have one without the other. Boot files follow the key."""
    apply.apply(host, with_own_key(host, leaf(direct=(peer(7, preshared=FIRST_PSK),), relays=())), psks=PSKS)
    own = (str(keys.public_key(host)), keys.create_next_key(host))
    both = replace(peer(7), psk_ids=(FIRST_PSK, SECOND_PSK))
    view = replace(leaf(direct=(both,), relays=()), keys=own)
    apply.apply(host, view, psks=PSKS)
    assert host.kernel.devices["wg0"].peers[key(7)].preshared == PSKS[FIRST_PSK]
    host.kernel.ran.clear()
    apply.apply(host, replace(view, activate_key=own[1]), psks=PSKS)
    (words,) = [argv for argv in host.kernel.ran if argv[:2] == ("wg", "set")]
    assert ("private-key" in words, "preshared-key" in words) == (True, True)
    assert host.kernel.devices["wg0"].peers[key(7)].preshared == PSKS[SECOND_PSK]
    assert keys.public_key(host) == own[1]
    assert f"preshared/{SECOND_PSK} " in (host.conf_dir / "wg0.conf").read_text()
    assert apply.apply(host, replace(view, activate_key=own[1])).lines == []


def test_orphaned_key_keeps_its_psks(host: FakeHost) -> None:
    """The node runs the orphaned key until the view activates the new one, and its neighbours use the PSKs with it."""
    apply.apply(host, with_own_key(host, leaf(direct=(peer(7, preshared=FIRST_PSK),), relays=())), psks=PSKS)
    lost = str(keys.public_key(host))
    host.key_file.unlink()
    own = (lost, keys.ensure(host))
    both = replace(peer(7), psk_ids=(FIRST_PSK, SECOND_PSK))
    view = replace(leaf(direct=(both,), relays=()), keys=own)
    apply.apply(host, view, psks=PSKS)
    device = host.kernel.devices["wg0"]
    assert (device.peers[key(7)].preshared, keys.orphaned_key(host)) == (PSKS[FIRST_PSK], lost)
    apply.apply(host, replace(view, activate_key=own[1]), psks=PSKS)
    assert (device.peers[key(7)].preshared, keys.orphaned_key(host)) == (PSKS[SECOND_PSK], None)
