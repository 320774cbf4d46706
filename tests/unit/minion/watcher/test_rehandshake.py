"""Removing and adding the peer of a link that is down: when, with which preshared key, and what is left running."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.keys import psk
from saltext_wgmesh.core.liveness import bfd
from saltext_wgmesh.core.liveness.link_report import LinkState
from saltext_wgmesh.minion.apply import apply
from saltext_wgmesh.minion.state import keys, psk_files
from saltext_wgmesh.minion.state.store import Store
from saltext_wgmesh.minion.system.peer_keys import PeerKeyTracker
from saltext_wgmesh.minion.watcher.rehandshake import (
    ATTEMPT_TIMEOUT,
    REHANDSHAKE_AFTER,
    REHANDSHAKE_EVERY,
    Rehandshaker,
)
from saltext_wgmesh.minion.watcher.slices import finish
from tests import nodeviews
from tests.unit.harness.fakehost import FakeHost, Kernel, with_ipv6
from tests.unit.harness.watcher import FinishedProcess, RunningProcess, uplink

PRESHARED = {str(psk.psk_id(nodeviews.key(n))): nodeviews.key(n) for n in (101, 102)}
OLD, NEW = sorted(PRESHARED)
ALL_DUE = 1e9
"""Seconds after which any attempt is due."""


@dataclass
class Node:
    """n5, which has the peers n7, with an endpoint, and n8, without one. What it starts is recorded."""

    host: FakeHost
    own_key: str
    ran: list[tuple[str, ...]] = field(default_factory=list)

    def view(self, psk_id):
        """The view in which both peers have the preshared key *psk_id*; None: they have none."""
        peers = (
            nodeviews.peer(7, endpoint="192.0.2.7:51820", preshared=psk_id),
            nodeviews.peer(8, preshared=psk_id),
        )
        return replace(nodeviews.leaf(direct=peers, relays=()), keys=(self.own_key,) if psk_id else ())

    def apply(self, *psk_ids):
        """Apply the view of each, one after the other."""
        for psk_id in psk_ids:
            apply.apply(self.host, self.view(psk_id), psks=PRESHARED)

    def rehandshaker(self, view):
        """That of *view*, which takes the last of several candidates where it would take any."""
        return Rehandshaker(
            self.host, view, PeerKeyTracker(self.host), start=self.start, choose=lambda known: known[-1]
        )

    def start(self, command):
        self.ran.append(tuple(command))
        return FinishedProcess(tuple(command))

    def psks_tried(self, psk_id, neighbour):
        """The preshared keys of the first three attempts with *neighbour* in the view of *psk_id*.

        Named by their files. None: without one, or nothing is run at all.
        """
        view = self.view(psk_id)
        (peer,) = (peer for peer in view.interfaces[0].peers if peer.node == neighbour)
        link = replace(uplink(7), peer=peer, interface=view.interfaces[0])
        rehandshaker = self.rehandshaker(view)
        found = []
        for _ in range(3):
            self.ran.clear()
            rehandshaker.maintain(link, ALL_DUE, {"wg0"})
            words = [word for command in self.ran for word in command]
            path = words[words.index("preshared-key") + 1] if "preshared-key" in words else None
            found.append(None if path in (None, "/dev/null") else Path(path).name)
        assert link.rehandshakes == 3
        return found


@pytest.fixture
def node(tmp_path):
    host = FakeHost.below(tmp_path, Kernel(sysctls=with_ipv6()))
    return Node(host=host, own_key=keys.ensure(host))


# --- which preshared key -------------------------------------------------------------------------------


def test_readded_peer_keeps_its_preshared_key(node):
    """It is removed and added in one command, which names the file; a peer that only calls is too."""
    node.apply(NEW)
    assert node.psks_tried(NEW, "n7") == [NEW] * 3
    folder = Store(host=node.host, mesh="wg0").psk_dir
    removed = ("wg", "set", "wg0", "peer", nodeviews.key(7), "remove", "peer", nodeviews.key(7))
    assert node.ran[0][:10] == (*removed, "preshared-key", f"{folder}/{NEW}")
    assert node.psks_tried(NEW, "n8") == [NEW] * 3
    caller = ("wg", "set", "wg0", "peer", nodeviews.key(8), "remove", "peer", nodeviews.key(8))
    assert node.ran[0][:10] == (*caller, "preshared-key", f"{folder}/{NEW}")
    assert "endpoint" not in node.ran[0]


def test_damaged_files_end_no_watcher(node, caplog):
    """Without the view before, its PSK is not tried. Without a key of its own, the node adds no peer."""
    node.apply(OLD, NEW)
    (Store(host=node.host, mesh="wg0").folder / "previous.json").write_text("{")
    assert node.psks_tried(NEW, "n7") == [NEW] * 3
    node.host.key_file.write_text("no key")
    assert node.psks_tried(NEW, "n7") == [None] * 3
    assert sum("peers cannot be added again" in line for line in caplog.messages) == 1


@pytest.mark.parametrize("neighbour", ["n7", "n8"])
@pytest.mark.parametrize(("old", "new"), [(OLD, NEW), (None, NEW), (OLD, None)])
def test_dead_link_is_tried_with_previous_psk_too(node, monkeypatch, old, new, neighbour):
    """For a while after a change: with the master down, the other end may not have the new key."""
    node.apply(old, new)
    assert node.psks_tried(new, neighbour) == [new, old, old]
    monkeypatch.setattr(Store, "age", lambda _: psk_files.ROLLOVER_TIME + 1)
    assert node.psks_tried(new, neighbour) == [new] * 3


def test_endpoints_are_tried_in_turn(node):
    """The neighbour may be reached at another of its addresses: each attempt takes the next one, and then the first."""
    view = node.view(None)
    peer = replace(view.interfaces[0].peers[0], endpoint="192.0.2.7:51820", other_endpoints=("10.9.9.7:51820",))
    link = replace(uplink(7), peer=peer, interface=view.interfaces[0])
    rehandshaker = node.rehandshaker(view)
    for _ in range(3):
        rehandshaker.maintain(link, ALL_DUE, {"wg0"})
    tried = [command[command.index("endpoint") + 1] for command in node.ran]
    assert tried == ["192.0.2.7:51820", "10.9.9.7:51820", "192.0.2.7:51820"]


@pytest.mark.parametrize("others", [1, 2, 3])
def test_endpoints_are_tried_with_each_key(node, others):
    """During a key rotation the neighbour may run either key at any of its addresses: no pair is left out."""
    view = node.view(None)
    more = tuple(f"10.9.{i}.7:51820" for i in range(others))
    peer = replace(view.interfaces[0].peers[0], next_key=nodeviews.key(70), other_endpoints=more)
    link = replace(uplink(7), peer=peer, interface=view.interfaces[0])
    rehandshaker = node.rehandshaker(view)
    for _ in range(2 * (others + 1)):
        rehandshaker.maintain(link, ALL_DUE, {"wg0"})
    tried = {(command[command.index("remove") - 1], command[command.index("endpoint") + 1]) for command in node.ran}
    assert tried == {(key, place) for key in peer.keys for place in (peer.endpoint, *more)}


# --- when ----------------------------------------------------------------------------------------------


def seconds_of_attempts(node, until, index=0, **link_fields):
    """The whole seconds after the failure at which the peer at *index* is added again, up to *until*."""
    view = node.view(None)
    link = replace(uplink(7), peer=view.interfaces[0].peers[index], interface=view.interfaces[0], **link_fields)
    rehandshaker = node.rehandshaker(view)
    found = []
    for second in range(until):
        before = link.rehandshakes
        rehandshaker.maintain(link, float(second), {"wg0"})
        found += [second] * (link.rehandshakes - before)
    return found


def test_dead_link_is_retried_with_growing_pauses(node):
    """At the listed seconds, and regularly from then on."""
    later = [REHANDSHAKE_AFTER[-1] + REHANDSHAKE_EVERY * n for n in (1, 2)]
    assert seconds_of_attempts(node, 100, state=LinkState.DOWN) == [*REHANDSHAKE_AFTER, *later]


def test_caller_is_retried_between_its_own_attempts(node):
    """A peer that is made again just after its handshake would lose the session that it has just opened."""
    seconds = seconds_of_attempts(node, 100, index=1, state=LinkState.DOWN)
    assert seconds == [3, 10, 25, 55, 85]
    assert not {*seconds} & {*seconds_of_attempts(node, 100, state=LinkState.DOWN)}


def test_both_keys_of_caller_are_made_again(node):
    """A rotating neighbour decides which key it calls with, and the allowed-ips stay with the active one."""
    view = node.view(None)
    peer = replace(view.interfaces[0].peers[1], next_key=nodeviews.key(9))
    link = replace(uplink(7), peer=peer, interface=view.interfaces[0], state=LinkState.DOWN)
    node.rehandshaker(view).maintain(link, ALL_DUE, {"wg0"})
    (command,) = node.ran
    assert [command[i - 1] for i, word in enumerate(command) if word == "remove"] == [*peer.keys]
    assert [command[i + 1] for i, word in enumerate(command) if word == "allowed-ips"] == [
        ",".join(sorted(peer.allowed_ips)),
        "",
    ]


@pytest.mark.parametrize("state", [LinkState.UP, LinkState.BLACKHOLE, LinkState.ADMIN_DOWN])
def test_link_that_is_not_dead_is_left_alone(node, state):
    """A new handshake would interrupt what it carries."""
    assert seconds_of_attempts(node, 100, state=state) == []


@pytest.mark.parametrize("state", [bfd.BfdState.INIT, bfd.BfdState.UP])
def test_link_that_hears_its_neighbour_is_left_alone(node, state):
    """What arrives was encrypted for a session that both ends have: there is nothing to repair."""
    session = bfd.Session(discriminator=7, interval=100_000, multiplier=3)
    session.state = state
    assert seconds_of_attempts(node, 100, state=LinkState.DOWN, session=session) == []


def test_missing_interface_gets_no_command(node):
    """An apply may be making it again."""
    view = node.view(None)
    link = replace(uplink(7), peer=view.interfaces[0].peers[0], interface=view.interfaces[0])
    node.rehandshaker(view).maintain(link, ALL_DUE, set())
    assert node.ran == []


# --- processes -----------------------------------------------------------------------------------------


@dataclass
class Attempts:
    """A rehandshaker whose clock the test sets; each of its processes hangs until it is killed."""

    node: Node
    now: float = 0.0
    started: list[RunningProcess] = field(default_factory=list)

    def __post_init__(self):
        view = self.node.view(None)
        tracker = PeerKeyTracker(self.node.host)
        self.rehandshaker = Rehandshaker(self.node.host, view, tracker, start=self.start, clock=lambda: self.now)
        self.links = [replace(uplink(7), peer=peer, interface=view.interfaces[0]) for peer in view.interfaces[0].peers]

    def start(self, command):
        self.started.append(RunningProcess(tuple(command)))
        return self.started[-1]

    def maintain(self, now):
        self.now = now
        for link in self.links:
            self.rehandshaker.maintain(link, ALL_DUE, {"wg0"})
        self.rehandshaker.reap()

    def running(self):
        """Return the public keys of the peers of the processes that run."""
        return [process.command[4] for process in self.started if not process.is_killed]


def test_stop_kills_only_what_still_runs(node):
    """A process that resolves a name would add a peer that the next view may not have. No other one is started."""
    attempts = Attempts(node)
    attempts.started.append(FinishedProcess(()))
    attempts.maintain(0.0)
    finish(attempts.rehandshaker.stop_steps())
    assert [process.is_killed for process in attempts.started[1:]] == [True, True]
    attempts.maintain(1000.0)
    assert len(attempts.started) == 3


@given(st.lists(st.floats(min_value=0.1, max_value=40), max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_hanging_wg_is_one_process_a_peer(node, pauses):
    """Whenever the watcher looks. Each is ended after its time, and the next attempt is made."""
    attempts = Attempts(node)
    now = 0.0
    for pause in (0.0, *pauses):
        began = len(attempts.started)
        attempts.maintain(now)
        running = attempts.running()
        assert len(set(running)) == len(running)
        assert len(attempts.started) - began in (0, 2)
        now += pause
    for later in (0, ATTEMPT_TIMEOUT, ATTEMPT_TIMEOUT, ATTEMPT_TIMEOUT):
        now += later
        attempts.maintain(now)
    assert len(attempts.started) >= 4
