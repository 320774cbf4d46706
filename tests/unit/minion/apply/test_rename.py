"""Interfaces that get other names: one at a time, while their links are held down."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from saltext_wgmesh.core.errors import HostError, RolledBack
from saltext_wgmesh.minion.apply import removal
from saltext_wgmesh.minion.state.store import Store
from tests.nodeviews import key, leaf, named, peer, relay
from tests.unit.harness.fake_watcher import (
    OLD,
    apply_fast,
)
from tests.unit.harness.fakehost import FakeDevice

NEAR = leaf(direct=(peer(7), peer(8)))


def test_renamed_interfaces_are_recreated_one_by_one(host, watched) -> None:
    """The access interface comes last. The old device first loses its peers and its port."""
    watcher = watched(NEAR)
    done = apply_fast(host, named(NEAR, "x"))
    assert watcher.admin_down == [("n1",), ("n2",), ("n7", "n8")]
    assert sorted(host.kernel.devices) == ["x", "x-u1", "x-u2"]
    assert {p.stem for p in host.conf_dir.glob("*.conf")} == {"x", "x-u1", "x-u2"}
    assert host.kernel.devices["x"].port == 51820
    words = [" ".join(argv) for argv in host.kernel.ran]
    silenced = next(n for n, w in enumerate(words) if w.startswith("wg set wg0 listen-port 0 peer") and "remove" in w)
    assert silenced < words.index("ip link add dev x type wireguard")
    lines = "\n".join(done.lines)
    assert lines.index("wg0-u1") < lines.index("wg0-u2") < lines.index("wg0:")
    memory = Store(host=host, mesh="wg0")
    assert (memory.view(), memory.previous()) == (named(NEAR, "x"), NEAR)
    assert memory.owned().interfaces == {"x", "x-u1", "x-u2"}
    assert apply_fast(host, named(NEAR, "x")).lines == []


def test_renamed_interface_keeps_last_known_endpoints(host, watched) -> None:
    """This node initiates the links, so it must not fall back to an outdated endpoint. Boot files have the view's."""
    watched(NEAR)
    host.kernel.devices["wg0"].peers[key(7)].endpoint = "198.51.100.7:4444"
    host.kernel.devices["wg0-u1"].peers[key(1)].endpoint = "198.51.100.9:9"
    apply_fast(host, named(NEAR, "x"))
    ends = {k: p.endpoint for d in host.kernel.devices.values() for k, p in (d.peers or {}).items()}
    assert ends == {key(1): OLD, key(2): "192.0.2.20:51820", key(7): "198.51.100.7:4444", key(8): None}
    assert "198.51" not in "".join(path.read_text() for path in host.conf_dir.glob("*.conf"))


def test_renamed_interface_keeps_roamed_endpoint(host, watched) -> None:
    """A peer with a session is reachable where it roamed to; the view has its old endpoint."""
    watched(leaf(relays=(1,)))
    uplink = host.kernel.devices["wg0-u1"].peers[key(1)]
    uplink.endpoint, uplink.handshake_at = "198.51.100.9:9", int(time.time())
    apply_fast(host, named(leaf(relays=(1,)), "x"))
    calls = [argv for argv in host.kernel.ran if argv[:3] == ("wg", "set", "x-u1") and "endpoint" in argv]
    assert calls[0][calls[0].index("endpoint") + 1] == "198.51.100.9:9"


def test_relay_renames_trunks_before_access_interface(host, watched) -> None:
    """The rules of the trunks follow their names."""
    view = relay(leaves=(peer(7),), trunks=(2, 3))
    watcher = watched(view)
    apply_fast(host, named(view, "x"))
    assert watcher.admin_down == [("n2",), ("n3",), ("n7",)]
    assert {device for _, device, _ in host.kernel.rules} == {"x-t2", "x-t3"}
    assert apply_fast(host, named(view, "x")).lines == []


def test_other_changes_follow_the_renaming(host, watched) -> None:
    """Another MTU, a new relay and a removed neighbour come with the requested view."""
    watcher = watched(NEAR)
    new = named(replace(leaf(relays=(2, 3), via=2, direct=(peer(7),)), mtu=1380), "x")
    watcher.names |= {"n3": "x-u3"}
    apply_fast(host, new)
    assert watcher.admin_down[:2] == [("n2",), ("n7", "n8")]
    assert sorted(host.kernel.devices) == ["x", "x-u2", "x-u3"]
    assert apply_fast(host, new).lines == []


@pytest.mark.parametrize(
    ("view", "lost", "reason", "stays"),
    [
        (NEAR, {"n2"}, "n2 is no longer reachable", ["wg0", "wg0-u2", "x-u1"]),
        (
            relay(leaves=(peer(7), peer(8))),
            {"n7", "n8"},
            r"no neighbour on x is reachable any longer \(n7, n8\)",
            ["wg0", "x-t2"],
        ),
    ],
)
def test_rename_that_loses_links_is_rolled_back(host, watched, view, lost, reason, stays) -> None:
    """As with a firewall that knows interfaces by their names. The steps before stay, and the next try continues."""
    watcher = watched(view)
    device = "x-u2" if lost == {"n2"} else "x"
    watcher.broken = lambda found: lost if device in found.kernel.devices else set()
    with pytest.raises(RolledBack, match=reason) as caught:
        apply_fast(host, named(view, "x"))
    held = Store(host=host, mesh="wg0").view()
    assert (sorted(host.kernel.devices), caught.value.digest) == (stays, held.digest())
    with pytest.raises(RolledBack, match=r"it was tried \d s ago"):
        apply_fast(host, named(view, "x"), retry_rolled_back=False)
    assert apply_fast(host, held).lines == []
    watcher.broken = lambda _found: set()
    watcher.admin_down.clear()
    apply_fast(host, named(view, "x"))
    assert (sorted(lost) in [sorted(a) for a in watcher.admin_down], ("n1",) in watcher.admin_down) == (True, False)
    assert sorted(host.kernel.devices) == sorted(i.name for i in named(view, "x").interfaces)


def test_rename_tolerates_loss_of_one_leaf(host, watched) -> None:
    """One leaf of several may be lost for a reason of its own."""
    view = relay(leaves=(peer(7), peer(8)))
    watcher = watched(view)
    watcher.broken = lambda found: {"n8"} if "x" in found.kernel.devices else set()
    apply_fast(host, named(view, "x"))
    assert sorted(host.kernel.devices) == ["x", "x-t2"]


def test_rename_to_foreign_device_changes_nothing(host, watched) -> None:
    """The foreign device is found before the first step."""
    watched(NEAR)
    host.kernel.devices["x"] = FakeDevice()
    with pytest.raises(HostError, match="x exists on this node and was not made by mesh wg0: nothing was changed"):
        apply_fast(host, named(NEAR, "x"))
    assert sorted(host.kernel.devices) == ["wg0", "wg0-u1", "wg0-u2", "x"]


def test_rename_without_watcher_is_one_step(host) -> None:
    """Endpoints are carried over, and a removal then leaves nothing."""
    apply_fast(host, NEAR)
    host.kernel.devices["wg0"].peers[key(7)].endpoint = "198.51.100.7:4444"
    apply_fast(host, named(NEAR, "x"))
    assert sorted(host.kernel.devices) == ["x", "x-u1", "x-u2"]
    assert host.kernel.devices["x"].peers[key(7)].endpoint == "198.51.100.7:4444"
    assert apply_fast(host, named(NEAR, "x")).lines == []
    assert removal.remove_mesh(host, "wg0").changed
    assert (host.kernel.devices, list(host.conf_dir.glob("*.conf"))) == ({}, [])
