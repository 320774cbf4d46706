"""A program that hangs delays what it was run for. Packets, probes and the report of the watcher stay in time."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.liveness import bfd
from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState, LinkStatus
from saltext_wgmesh.minion.apply import apply
from saltext_wgmesh.minion.state import keys, link_report_file
from saltext_wgmesh.minion.watcher import link_verdict
from saltext_wgmesh.minion.watcher import loop as loop_module
from saltext_wgmesh.minion.watcher.loop import Loop
from saltext_wgmesh.minion.watcher.route_updater import RouteUpdater
from saltext_wgmesh.minion.watcher.slices import finish
from saltext_wgmesh.minion.watcher.transport import Transport
from tests import nodeviews
from tests.unit.harness.fakehost import FakeHost, Kernel, with_ipv6

INTERVAL = 0.1
"""Seconds between two packets of a session, as in the views here."""
SECONDS = 1.8
"""How long a program hangs."""
MULTIPLIER = 12
"""Packets that may be missing: a busy machine delays this test too."""
DEVICES = frozenset({"wg0", "wg0-u1", "wg0-u2", "wg0-u3"})


@dataclass(frozen=True, slots=True, kw_only=True)
class HangingHost(FakeHost):
    """A FakeHost on which each command with the word *hanging* waits until it may *go_on*."""

    hanging: list[str] = field(default_factory=list)
    waits: list[tuple[str, ...]] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)

    def run(self, *argv: str, text: str = "") -> str:
        if set(self.hanging) & set(argv):
            self.waits.append(argv)
            assert self.go_on.wait(30)
        return super(HangingHost, self).run(*argv, text=text)


@dataclass
class Sent:
    """Neighbour, or the relay of a probe → when packets were sent to it."""

    packets: dict[str, list[float]] = field(default_factory=dict)
    probes: dict[str, list[float]] = field(default_factory=dict)

    def longest_gap(self, sent: dict[str, list[float]], since: float) -> float:
        """Seconds of the longest time without one to n2, or without one to n3."""
        ends = time.monotonic()
        lists = [[since, *(at for at in sent[name] if at > since), ends] for name in ("n2", "n3")]
        return max(later - at for times in lists for at, later in itertools.pairwise(times))


def view():
    """A leaf of three relays. n1, whose routes it takes first, has two keys."""
    made = nodeviews.leaf(relays=(1, 2, 3))
    first = made.interfaces[1]
    with_two_keys = replace(first, peers=tuple(replace(p, next_key=nodeviews.key(99)) for p in first.peers))
    return replace(made, interfaces=(made.interfaces[0], with_two_keys, *made.interfaces[2:]))


@pytest.fixture
def host(tmp_path):
    """The leaf after an apply."""
    made = HangingHost.below(tmp_path, Kernel(sysctls=with_ipv6()))
    keys.ensure(made)
    apply.apply(made, view())
    yield made
    made.go_on.set()


@pytest.fixture
def sent(monkeypatch):
    """Nothing is sent, and noted."""
    made = Sent()

    def send(_self, _mesh, link, _packet):
        made.packets.setdefault(link.name, []).append(time.monotonic())

    def probe(_self, _mesh, link, _target):
        made.probes.setdefault(link.name, []).append(time.monotonic())
        link.last_probe_reply = time.monotonic()

    monkeypatch.setattr("socket.if_nametoindex", lambda name: 1 + sum(name.encode()))
    monkeypatch.setattr(Transport, "_listen", lambda *_: None)
    monkeypatch.setattr(Transport, "send", send)
    monkeypatch.setattr(Transport, "send_probe", probe)
    return made


def run(loop, seconds, *, flapping=""):
    """Have the loop turn while all neighbours send; that of *flapping* is down in every second moment."""
    end, beat = time.monotonic() + seconds, 0
    next_beat = time.monotonic()
    while time.monotonic() < end:
        if time.monotonic() >= next_beat:
            beat, next_beat = beat + 1, next_beat + INTERVAL / 2
            for mesh in loop._meshes.values():
                for link in mesh.links.values():
                    down = link.name == flapping and beat % 2
                    up = bfd.BfdState.UP if link.session.state is not bfd.BfdState.DOWN else bfd.BfdState.INIT
                    loop._on_packet(mesh, link, packet(link, bfd.BfdState.ADMIN_DOWN if down else up))
        loop.turn()


def packet(link, state):
    """A packet of the neighbour of *link*."""
    return bfd.Packet(
        state=state,
        multiplier=MULTIPLIER,
        my_discriminator=9,
        your_discriminator=link.session.discriminator,
        desired_min_tx=int(INTERVAL * 1e6),
        required_min_rx=int(INTERVAL * 1e6),
    )


@pytest.mark.parametrize("program", ["-batch", "route", "wg"])
def test_hanging_program_delays_no_packet(host, sent, monkeypatch, program):
    """Neither a changed route, nor a list of routes, nor counters. Each is due all the time."""
    monkeypatch.setattr(loop_module, "RECONCILE_EVERY", 0.1)
    monkeypatch.setattr(loop_module, "HEARTBEAT_EVERY", 0.2)
    monkeypatch.setattr(link_verdict, "STABLE_AFTER", 0.0)
    loop = Loop(host)
    deadline = time.monotonic() + 20
    while not {"n2", "n3"} <= sent.probes.keys() & sent.packets.keys() and time.monotonic() < deadline:
        run(loop, 0.2)
    mesh = loop._meshes["wg0"]
    host.hanging.append(program)
    since = time.monotonic()
    run(loop, SECONDS, flapping="n1")
    assert sent.longest_gap(sent.packets, since) < SECONDS / 2
    assert sent.longest_gap(sent.probes, since) < SECONDS / 2
    assert {name: mesh.links[name].state for name in ("n2", "n3")} == dict.fromkeys(("n2", "n3"), LinkState.UP)
    assert host.waits
    assert time.time() - link_report_file.report_path(host, "wg0").stat().st_mtime < 1.0


def report(n1_is_up):
    """n2 is up, and n3 down."""
    states = {"n1": LinkState.UP if n1_is_up else LinkState.DOWN, "n2": LinkState.UP, "n3": LinkState.DOWN}
    links = {n: LinkStatus(neighbour=n, interface=f"wg0-u{n[1]}", state=s, since=7.0) for n, s in states.items()}
    return LinkReport(mesh="wg0", from_watcher=True, links=MappingProxyType(links))


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_routes_end_as_links_are_last(host, data):
    """However links change while ``ip`` runs, whichever attempts fail, and in whichever order the loop sees that."""
    host.go_on.set()
    updater = RouteUpdater(host, view())
    updater.reconcile_routes(report(True), DEVICES)
    tasks: list = []
    is_up = True
    for act in data.draw(st.lists(st.sampled_from(["change", "reconcile", "go on", "refuse"]), max_size=12)):
        host.kernel.refused_prefixes = {nodeviews.NETWORKS[0]} if act == "refuse" else set()
        if act == "change":
            is_up = not is_up
            tasks.append(updater.update_steps(report(is_up), DEVICES, ["n1"]))
        elif act == "reconcile":
            tasks.append(updater.reconcile_steps(report(is_up), DEVICES))
        for task in list(tasks) if act == "go on" else tasks[-1:]:
            if next(task, "done") == "done":
                tasks.remove(task)
    host.kernel.refused_prefixes = set()
    for task in data.draw(st.permutations(tasks)):
        finish(task)
    updater.update_routes(report(is_up), DEVICES)
    device = "wg0-u1" if is_up else "wg0-u2"
    assert {n: host.kernel.routes["main", n]["dev"] for n in nodeviews.NETWORKS} == dict.fromkeys(
        nodeviews.NETWORKS, device
    )
