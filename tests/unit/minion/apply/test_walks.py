"""Walks through random views: after each apply the node holds its view, wherever the apply before it failed."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.keys import psk
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.apply import apply, removal
from saltext_wgmesh.minion.state.store import Store
from tests.nodeviews import leaf, peer, relay
from tests.unit.harness.fakehost import FakeHost, Kernel
from tests.unit.harness.nodes import FIRST_PSK, PSKS, SECOND_PSK, node_below, psk_files_of, with_own_key

NUMBERS = st.integers(6, 9)
ENDPOINTS = st.sampled_from([None, "192.0.2.7:51820", "192.0.2.8:51820", "[2001:db8::7]:51820"])


@st.composite
def neighbours(draw: st.DrawFn) -> tuple:
    """Draw some of n6 to n9, with host addresses and subnets dealt among them at random."""
    chosen = sorted(draw(st.sets(NUMBERS)))
    prefixes = [f"10.100.0.{n}/32" for n in range(6, 10)] + [f"192.168.{n}.0/24" for n in range(3)]
    owners = {p: draw(st.sampled_from(chosen)) for p in prefixes if chosen and draw(st.booleans())}
    return tuple(
        peer(
            number,
            *([p for p, owner in owners.items() if owner == number] or [f"10.100.8.{number}/32"]),
            endpoint=draw(ENDPOINTS),
            keepalive=draw(st.sampled_from([0, 25])),
            preshared=draw(st.sampled_from([None, FIRST_PSK, SECOND_PSK])),
        )
        for number in chosen
    )


@st.composite
def views(draw: st.DrawFn) -> View:
    """Draw a view of a leaf or a relay with any of two relays, or of a node of a mesh without relays."""
    near = draw(neighbours())
    far = tuple(sorted(draw(st.sets(st.integers(1, 3), max_size=2))))
    if draw(st.booleans()):
        return replace(relay(leaves=near, trunks=far), mtu=draw(st.sampled_from([1380, 1420])))
    return leaf(direct=near, relays=far, via=far[-1] if far else 1, port=draw(st.sampled_from([51820, 51821, 51822])))


def peers_of(kernel: Kernel) -> dict[tuple[str, str], tuple]:
    """Return the configuration of each peer, by device and key."""
    return {
        (name, public_key): (p.endpoint, p.keepalive, frozenset(p.allowed_ips), p.preshared)
        for name, device in kernel.devices.items()
        for public_key, p in (device.peers or {}).items()
    }


@settings(max_examples=60, deadline=None)
@given(st.lists(views(), min_size=2, max_size=5))
def test_walk_through_views_leaves_no_difference(walk: list[View]) -> None:
    """After each view nothing differs, unchanged peers are untouched, and a removal leaves nothing."""
    with tempfile.TemporaryDirectory() as folder:
        host = node_below(Path(folder))
        for view in (with_own_key(host, v) for v in walk):
            foretold = apply.apply(host, view, dry_run=True)
            before = peers_of(host.kernel)
            host.kernel.touched.clear()
            done = apply.apply(host, view, psks=PSKS)
            after = peers_of(host.kernel)
            same = {k for k, config in before.items() if after.get(k) == config}
            assert not same & set(host.kernel.touched)
            assert done.lines == foretold.lines
            assert apply.apply(host, view).lines == []
            assert set(host.kernel.devices) == {i.name for i in view.interfaces}
            assert {p.stem for p in host.conf_dir.glob("*.conf")} == {i.name for i in view.interfaces}
            remembered = [v for v in (Store(host=host, mesh="wg0").previous(), view) if v]
            needed = {name for v in remembered for name in psk.psk_ids(v)}
            assert psk_files_of(host) == {name: PSKS[name] for name in needed}
            peers = {(i.name, p.public_key): "".join(p.psk_ids) for i in view.interfaces for p in i.peers}
            assert {k: config[3] for k, config in after.items()} == {k: PSKS.get(p) for k, p in peers.items()}
        removal.remove_mesh(host, "wg0")
        assert (host.kernel.devices, host.kernel.routes, host.kernel.rules) == ({}, {}, set())
        assert list(host.conf_dir.glob("*.conf")) == []
        assert not (host.state_dir / "wg0").exists()


@settings(max_examples=30, deadline=None)
@given(st.tuples(views(), views(), views()), st.integers(0, 60), st.integers(0, 20))
def test_failed_run_is_finished_by_next_run(walk: tuple[View, View, View], good: int, later: int) -> None:
    """Wherever a command fails, the next run reaches its view, and no device or route is orphaned."""
    with tempfile.TemporaryDirectory() as folder:
        host = node_below(Path(folder))
        first, second, third = (with_own_key(host, v) for v in walk)
        apply.apply(host, first, psks=PSKS)
        with BreakAfter(host, good), contextlib.suppress(HostError):
            apply.apply(host, second, psks=PSKS)
        apply.apply(host, third, psks=PSKS)
        assert set(host.kernel.devices) == {i.name for i in third.interfaces}
        with BreakAfter(host, later), contextlib.suppress(HostError):
            removal.remove_mesh(host, "wg0")
        removal.remove_mesh(host, "wg0")
        assert (host.kernel.devices, host.kernel.routes, host.kernel.rules) == ({}, {}, set())


class BreakAfter:
    """Within the block, every command after the first *good* ones fails."""

    def __init__(self, host: FakeHost, good: int) -> None:
        self.host, self.good = host, good

    def __enter__(self) -> None:
        self.run = FakeHost.run
        left = [self.good]

        def run(host: FakeHost, *argv: str, text: str = "") -> str:
            left[0] -= 1
            if left[0] < 0:
                raise HostError("the power is out")
            return self.run(host, *argv, text=text)

        FakeHost.run = run  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        FakeHost.run = self.run  # type: ignore[method-assign]
