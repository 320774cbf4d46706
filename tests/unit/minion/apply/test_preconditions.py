"""Devices, files and routes that are not the mesh's: an apply leaves them alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.model.view import Route, View
from saltext_wgmesh.minion.apply import apply, removal
from saltext_wgmesh.minion.state.store import Store
from tests.nodeviews import key, leaf, named, peer, relay
from tests.unit.harness.fakehost import FakeDevice, FakeHost, FakePeer


def test_foreign_device_is_not_touched(host: FakeHost) -> None:
    """A foreign device with a name of the view stops the apply before anything is changed."""
    host.kernel.devices["wg0-u2"] = FakeDevice(peers={key(9): FakePeer()})
    with pytest.raises(HostError, match=r"wg0-u2 exists on this node and was not made by mesh wg0"):
        apply.apply(host, leaf())
    assert host.kernel.devices == {"wg0-u2": FakeDevice(peers={key(9): FakePeer()})}


def test_foreign_route_is_not_replaced(host: FakeHost) -> None:
    """A foreign route stops the apply before anything is changed; a route over a device of the mesh is the mesh's."""
    foreign = {("main", "10.100.0.0/16"): {"dev": "eth1", "proto": "static"}}
    host.kernel.routes.update(foreign)
    for dry_run in (True, False):
        with pytest.raises(HostError, match=r"10\.100\.0\.0/16 of mesh wg0 has a route by eth1 .* nothing was changed"):
            apply.apply(host, leaf(), dry_run=dry_run)
    assert (host.kernel.routes, host.kernel.devices) == (foreign, {})
    del host.kernel.routes["main", "10.100.0.0/16"]
    apply.apply(host, leaf())
    host.kernel.routes["main", "10.100.0.0/16"] = {"dev": "wg0-u1", "proto": "boot"}
    assert len(apply.apply(host, leaf()).lines) == 1


@pytest.mark.parametrize("protocol", ["kernel", "dhcp", "ra", "boot"])
@pytest.mark.parametrize("prefix", ["10.100.0.0/16", "fd00:64::/64"])
@pytest.mark.parametrize("metric", [None, "100", "1024"])
def test_route_of_any_other_origin_stays(host: FakeHost, protocol: str, prefix: str, metric: str | None) -> None:
    """The node's own LAN, a lease, an advertisement or an administrator: no metric makes such a route replaceable."""
    foreign = {("main", prefix): {"dev": "eth0", "proto": protocol} | ({"metric": metric} if metric else {})}
    host.kernel.routes.update(foreign)
    with pytest.raises(HostError, match=rf"{prefix} of mesh wg0 has a route by eth0 .* nothing was changed"):
        apply.apply(host, leaf())
    assert (host.kernel.routes, host.kernel.devices) == (foreign, {})


def test_former_interface_name_is_free_again(host: FakeHost) -> None:
    """After an interface is removed, a device that an administrator makes under its name is foreign."""
    apply.apply(host, leaf(relays=(1, 2)))
    apply.apply(host, leaf(relays=(1,)))
    host.kernel.devices["wg0-u2"] = FakeDevice(peers={})
    assert apply.apply(host, leaf(relays=(1,))).lines == []
    assert "wg0-u2" in host.kernel.devices


def test_device_from_own_boot_file_is_owned(host: FakeHost) -> None:
    """Even if the state was lost, the boot file says whose the device is."""
    apply.apply(host, leaf(relays=()))
    Store(host=host, mesh="wg0").purge()
    assert apply.apply(host, leaf(relays=())).lines == []


def test_owned_device_unknown_to_wg_is_error(host: FakeHost) -> None:
    """A device without its wireguard-go can't be configured; the error says how to recreate it."""
    apply.apply(host, leaf(relays=()))
    host.kernel.devices["wg0"].peers = None
    with pytest.raises(HostError, match="'ip link del wg0'"):
        apply.apply(host, leaf(relays=()))


@pytest.mark.parametrize(
    ("other", "shared"),
    [
        (leaf(mesh="m2055", relays=(), port=51900), rf"routing table {constants.trunk_table('m813')}"),
        (named(leaf(mesh="wg7", relays=(), port=51900), "m813"), "interface m813"),
        (leaf(mesh="wg7", relays=()), "UDP port 51820"),
    ],
    ids=["table", "interface", "port"],
)
def test_mesh_that_clashes_with_former_one_is_named(host: FakeHost, other: View, shared: str) -> None:
    """The node has that one, and was never told to leave it. Nothing changes until it is removed."""
    apply.apply(host, other)
    before = (dict(host.kernel.routes), dict(host.kernel.devices))
    for dry_run in (True, False):
        with pytest.raises(
            HostError, match=rf"{shared} of mesh m813 is also that of the mesh {other.mesh} on this node"
        ):
            apply.apply(host, leaf(mesh="m813", relays=()), dry_run=dry_run)
    assert (host.kernel.routes, host.kernel.devices) == before
    removal.remove_mesh(host, other.mesh)
    apply.apply(host, leaf(mesh="m813", relays=()))


def test_meshes_leave_each_other_alone(host: FakeHost) -> None:
    """An apply or a removal of one mesh changes no route, rule or unreachable prefix of another."""
    other = leaf(mesh="wg1", relays=(), port=51900)
    beyond = Route(prefixes=("10.200.0.0/16",), via=())
    other = replace(other, addresses=("10.200.0.5",), networks=beyond.prefixes, routes=(beyond,))
    apply.apply(host, relay(leaves=(peer(7),)))
    held = dict(host.kernel.routes), set(host.kernel.rules)
    apply.apply(host, other)
    assert host.kernel.routes["main", "10.200.0.0/16"] == {"proto": "87"}
    assert apply.apply(host, relay(leaves=(peer(7),))).lines == []
    assert apply.apply(host, other).lines == []
    removal.remove_mesh(host, "wg1")
    assert (host.kernel.routes, host.kernel.rules) == held
