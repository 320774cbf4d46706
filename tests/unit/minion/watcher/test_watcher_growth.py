"""No step of the watcher's loop grows with the number of links, and no round of it faster than that number."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from saltext_wgmesh.core.liveness import bfd
from saltext_wgmesh.core.liveness.link_report import LinkState
from saltext_wgmesh.core.model.view import Peer, Route, View
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.state.store import Store
from saltext_wgmesh.minion.watcher.loop import Loop
from saltext_wgmesh.minion.watcher.mesh import MeshMonitor
from saltext_wgmesh.minion.watcher.slices import Steps, finish
from saltext_wgmesh.minion.watcher.transport import Transport
from saltext_wgmesh.minion.watcher.view_reader import view_steps
from tests import nodeviews
from tests.unit.harness.fakehost import FakeDevice, FakeHost, Kernel
from tests.unit.harness.operations import LINEAR, calls, longest_slice
from tests.unit.harness.watcher import Links, uplink

SMALL, LARGE = 200, 800
SAME = 1.5
"""How much longer the longest step may be with four times the links."""
NOW = 1e9


def relay_view(leaves: int, *, with_next_keys: bool = False) -> View:
    """Return a relay with two other relays, and a route in each table for each of *leaves*."""
    view = nodeviews.relay(trunks=(2, 3))
    peers = tuple(_leaf(i, with_next_keys) for i in range(leaves))
    routes = (Route(prefixes=p.allowed_ips, via=(p.node, "n2"), detour=True, from_trunk=(p.node,)) for p in peers)
    access = replace(view.interfaces[0], peers=peers)
    return replace(view, interfaces=(access, *view.interfaces[1:]), routes=(view.routes[0], *routes))


def _leaf(number: int, with_next_key: bool) -> Peer:
    address = f"10.100.{1 + number // 250}.{number % 250}"
    model = nodeviews.peer(9, f"{address}/32")
    next_key = f"next{number}" if with_next_key else None
    return replace(model, node=f"leaf{number}", address=address, public_key=f"key{number}", next_key=next_key)


@pytest.fixture(autouse=True)
def interfaces(monkeypatch):
    """Each interface of a view exists, and nothing is sent."""
    monkeypatch.setattr(socket, "if_nametoindex", lambda name: 1 + sum(name.encode()))
    monkeypatch.setattr(Transport, "_listen", lambda *_: None)
    monkeypatch.setattr(Transport, "send", lambda *_: None)


def host_of(folder: Path, view: View) -> FakeHost:
    """Return a host with the devices of *view*."""
    devices = {i.name: FakeDevice(up=True, addresses=[f"{view.addresses[0]}/32"]) for i in view.interfaces}
    host = FakeHost.below(folder, Kernel(devices=devices))
    keys.ensure(host)
    return host


@pytest.fixture
def monitor(tmp_path) -> Callable[[int], MeshMonitor]:
    """Return the monitor of a relay with a number of leaves, whose links are all up."""

    def made(leaves: int, **options: bool) -> MeshMonitor:
        view = relay_view(leaves, **options)
        host = host_of(tmp_path / str(leaves), view)
        for each in (replace(view, mtu=1280), view):
            Store(host=host, mesh="wg0").set_view(each)
        mesh = MeshMonitor(host, view)
        set_all(mesh, bfd.BfdState.UP)
        mesh.maintain(NOW)
        return mesh

    return made


def set_all(mesh: MeshMonitor, state: bfd.BfdState) -> None:
    """All sessions take *state*."""
    for link in mesh.links.values():
        link.session.state = state
        link.session.diagnostic = bfd.Diagnostic.NONE if state is bfd.BfdState.UP else bfd.Diagnostic.TIME_EXPIRED


def all_down(mesh: MeshMonitor) -> Steps[None]:
    """All links were lost at once, and a rehandshake is due for each."""
    set_all(mesh, bfd.BfdState.DOWN)
    for link in mesh.links.values():
        mesh.evaluate(link, NOW + 100)
    return mesh.maintain_steps(NOW + 102)


def trunk_down(mesh: MeshMonitor) -> Steps[None]:
    """A trunk is lost, which all routes may take."""
    mesh.links["n2"].session.state = bfd.BfdState.DOWN
    mesh.links["n2"].session.diagnostic = bfd.Diagnostic.TIME_EXPIRED
    mesh.evaluate(mesh.links["n2"], NOW + 1)
    return mesh.route_steps()


def foreign_routes(mesh: MeshMonitor) -> Steps[None]:
    """Each route of the main table has been replaced by another program's."""
    routes = mesh.host.kernel.routes
    places = [(table, prefix) for table, prefix in routes if table == "main"]
    assert len(places) > len(mesh.links) / 2
    routes |= {place: {"dev": "eth0", "proto": "static"} for place in places}
    return mesh.reconcile_steps()


def lookup(mesh: MeshMonitor) -> Steps[None]:
    """The lookup of all links and timers is made again."""
    loop = Loop(mesh.host)
    loop._meshes["wg0"] = mesh
    return loop._lookup_steps()


ROUNDS: dict[str, Callable[[MeshMonitor], Steps[object]]] = {
    "maintenance": lambda mesh: mesh.maintain_steps(NOW + 1),
    "reconciliation": lambda mesh: mesh.reconcile_steps(delete_stale=True),
    "foreign routes": foreign_routes,
    "all links down": all_down,
    "trunk down": trunk_down,
    "same view": lambda mesh: mesh.update_steps(mesh.view),
    "view read": lambda mesh: view_steps(json.dumps(mesh.view.as_dict())),
    "lookup": lookup,
}


@pytest.mark.parametrize("start", ROUNDS.values(), ids=ROUNDS.keys())
def test_step_of_loop_has_constant_size(monitor, start):
    """The longest step between two looks for packets is the same for four times the links."""
    assert longest_slice(start(monitor(LARGE))) < SAME * longest_slice(start(monitor(SMALL)))


@pytest.mark.parametrize("start", ROUNDS.values(), ids=ROUNDS.keys())
def test_round_of_loop_grows_linearly(monitor, start):
    """All steps together take four times the calls for four times the links."""
    small, large = start(monitor(SMALL)), start(monitor(LARGE))
    assert calls(lambda: finish(large)) < LINEAR * calls(lambda: finish(small))


def test_tracking_of_keys_grows_linearly(monitor):
    """All leaves have two keys, and none is heard."""

    def track(leaves):
        mesh = monitor(leaves, with_next_keys=True)
        set_all(mesh, bfd.BfdState.DOWN)
        peers = mesh.host.kernel.devices["wg0"].peers
        model = FakeDevice().peers
        assert model == {}
        mesh.host.run("wg", "set", "wg0", *(w for p in mesh.links.values() for k in p.peer.keys for w in _added(k)))
        assert len(peers) > leaves
        return lambda: finish(mesh._track_keys_steps(NOW + 1))

    assert calls(track(LARGE)) < LINEAR * calls(track(SMALL))


def _added(key: str) -> tuple[str, ...]:
    return "peer", key, "persistent-keepalive", "0"


@pytest.mark.parametrize("is_relay_up", [True, False])
@pytest.mark.parametrize("state", [LinkState.UP, LinkState.DOWN, LinkState.NEW])
def test_packet_costs_same_for_many_links(monitor, state, is_relay_up):
    """Whether its link is up or waits, and whether or not another relay is up."""

    def packet(leaves):
        mesh = monitor(leaves)
        for name in ("n2", "n3"):
            if not is_relay_up:
                mesh.links[name].session.state = bfd.BfdState.DOWN
                mesh.evaluate(mesh.links[name], NOW + 1000)
        link = mesh.links["leaf7"]
        link.state = state
        link.hold_down = replace(link.hold_down, hold=60.0)
        return lambda: mesh.evaluate(link, NOW + 1001)

    assert calls(packet(LARGE)) <= calls(packet(SMALL))


def test_link_moves_its_own_routes_alone(monitor):
    """A leaf that goes down costs the same for four times the leaves."""

    def loss(leaves):
        mesh = monitor(leaves)
        mesh.links["leaf7"].session.state = bfd.BfdState.DOWN
        mesh.links["leaf7"].session.diagnostic = bfd.Diagnostic.TIME_EXPIRED
        assert mesh.evaluate(mesh.links["leaf7"], NOW + 1)
        return lambda: finish(mesh.route_steps())

    assert calls(loss(LARGE)) <= SAME * calls(loss(SMALL))


@pytest.mark.parametrize("isolated", [False, True])
def test_probes_grow_linearly(isolated):
    """With the number of relays, also while all of them say that they are isolated."""

    def probes(relays):
        links = Links.of(*(uplink(i) for i in range(1, relays + 1)))
        links.sessions(NOW, *links.links)
        for link in links.links.values():
            link.session.remote_diagnostic = bfd.Diagnostic.ADMIN_DOWN if isolated else bfd.Diagnostic.NONE
        return lambda: list(links.verdict.probes(NOW + 10))

    assert calls(probes(200)) < LINEAR * calls(probes(50))
