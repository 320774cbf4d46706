"""When a link that was down is used again, and links at rest."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from saltext_wgmesh.core import bfd, plan, preshared
from saltext_wgmesh.core.errors import ViewError
from saltext_wgmesh.core.linkstate import Link, LinkReport, LinkState
from saltext_wgmesh.core.types import Interface, Kind, Register
from saltext_wgmesh.minion import apply, keys, meshwatch, resting
from saltext_wgmesh.minion import preshared as preshared_files
from saltext_wgmesh.minion.meshwatch import RESUMES, RETURNED, MeshWatch
from saltext_wgmesh.minion.store import Store
from tests import nodeviews

from .fakehost import FakeHost, Kernel, with_ipv6
from .worlds import all_facts, leaf, mesh, relay


@pytest.fixture
def watch(tmp_path):
    """A leaf with two relays; both are heard since second 0."""
    world = mesh(relay("r1"), relay("r2", "203.0.113.2"), leaf("n"))
    made = plan.make(world, all_facts("r1", "r2", "n"), Register())
    found = MeshWatch(FakeHost.below(tmp_path, Kernel()), made.views["n"])
    hear(found, 0.0, "r1", "r2")
    assert states(found) == {"r1": LinkState.UP, "r2": LinkState.UP}
    return found


def hear(watch, now, *heard):
    """At second *now* the sessions to *heard* are up, the others have timed out; the watcher judges."""
    for name, link in watch.links.items():
        link.session.state = bfd.State.UP if name in heard else bfd.State.DOWN
        link.session.diagnostic = bfd.Diagnostic.NONE if name in heard else bfd.Diagnostic.TIME_EXPIRED
        watch.judge(link, now)


def states(watch):
    """Neighbour → what is believed."""
    return {name: link.state for name, link in watch.links.items()}


def test_a_link_that_returns_waits_while_another_carries(watch):
    hear(watch, 100.0, "r2")
    hear(watch, 101.0, "r1", "r2")
    assert states(watch)["r1"] is LinkState.DOWN
    hear(watch, 101.0 + RETURNED, "r1", "r2")
    assert states(watch)["r1"] is LinkState.UP


def test_a_link_that_is_held_down_is_used_before_one_that_is_dead(watch):
    """It carries, whatever it did before; the other, which went down last, does not."""
    hear(watch, 100.0, "r2")
    watch.links["r1"].damping = replace(watch.links["r1"].damping, hold=30.0)
    hear(watch, 200.0)
    watch.links["r1"].session.state = bfd.State.UP
    assert watch._note_heard(watch.links["r1"])
    assert not watch._note_heard(watch.links["r1"])
    assert max(watch.report().down.items(), key=lambda item: item[1])[0] == "r1"
    again = LinkReport.from_dict(watch.report().as_dict())
    assert again == watch.report()
    assert again.links["r1"].heard


def test_another_multiplier_counts_for_sessions_that_run(watch):
    faster = replace(watch.view, bfd=replace(watch.view.bfd, multiplier=7))
    before = watch.links["r1"].session
    watch.update(faster)
    assert watch.links["r1"].session is before
    assert before.tick(1e9, 0.5).multiplier == 7


def test_damping_is_forgotten_by_a_watcher_that_came_after(tmp_path):
    """A link that has been good for long, as the file says, is used at once when it returns."""
    now = 1_000.0
    good = Link(neighbour="r1", interface="wg0-u1", state=LinkState.UP, since=time.time() - 3600, hold=60.0)
    assert meshwatch._remembered(good, now).went_down(now).hold == 0.0
    assert meshwatch._remembered(replace(good, since=time.time() - 5), now).went_down(now).hold == 60.0
    assert meshwatch._remembered(replace(good, state=LinkState.DOWN), now).went_down(now).hold == 60.0


@pytest.mark.parametrize("field", ["since", "hold", "interval"])
@pytest.mark.parametrize("value", [float("inf"), float("nan"), -1, 1e300, "x", None, []])
def test_a_report_with_numbers_out_of_range_is_refused(watch, field, value):
    raw = watch.report().as_dict()
    raw["links"]["r1"][field] = value
    with pytest.raises(ViewError, match="damaged"):
        LinkReport.from_dict(raw)


def test_a_relay_that_says_that_it_is_alone_is_kept_until_another_is_good(watch):
    """One that came back a moment ago may have no other relay yet either."""
    hear(watch, 100.0, "r2")
    watch.links["r2"].session.remote_diagnostic = bfd.Diagnostic.CONCATENATED_DOWN
    hear(watch, 101.0, "r1", "r2")
    assert states(watch) == {"r1": LinkState.DOWN, "r2": LinkState.UP}
    hear(watch, 101.0 + RETURNED, "r1", "r2")
    hear(watch, 101.1 + RETURNED, "r1", "r2")
    assert states(watch) == {"r1": LinkState.UP, "r2": LinkState.MUTE}


def test_a_link_that_returns_first_of_all_is_used_at_once(watch):
    """However much it flapped: to wait is to be cut off."""
    for second in (100.0, 110.0, 120.0):
        hear(watch, second, "r2")
        hear(watch, second + 2, "r1", "r2")
        hear(watch, second + 8, "r1", "r2")
    assert watch.links["r1"].damping.hold > RETURNED
    hear(watch, 130.0)
    hear(watch, 131.0, "r1")
    assert states(watch) == {"r1": LinkState.UP, "r2": LinkState.DOWN}


def test_a_relay_that_was_mute_is_used_when_the_other_left_the_mesh(watch):
    """Probes went through it to the relay that was about to leave; now there is none to be probed for."""
    for second in range(10):
        list(watch.probes(100.0 + second))
        hear(watch, 100.0 + second, "r1", "r2")
    assert states(watch) == {"r1": LinkState.MUTE, "r2": LinkState.MUTE}
    world = mesh(relay("r1"), leaf("n"))
    watch.update(plan.make(world, all_facts("r1", "n"), Register()).views["n"])
    list(watch.probes(111.0))
    hear(watch, 120.0, "r1")
    assert states(watch) == {"r1": LinkState.UP}


# --- links at rest -------------------------------------------------------------------------------------


def rest(watch, now, *neighbours):
    """An apply asks for the links to *neighbours* to rest, and the watcher looks."""
    request = {"neighbours": neighbours, "until": time.time() + 10}
    resting.path(watch.host, "wg0").parent.mkdir(exist_ok=True)
    resting.path(watch.host, "wg0").write_text(json.dumps(request))
    watch.rest(now)
    judge(watch, now)


def judge(watch, now):
    for link in watch.links.values():
        watch.judge(link, now)


def via(watch):
    """By which interface the mesh goes."""
    return {route.device for route in watch._wanted() if route.prefix in watch.view.networks}


def test_a_link_at_rest_is_not_used_and_comes_back_at_once(watch):
    """Without a hold, though another carries; and that it rested is no flap."""
    first = via(watch)
    rest(watch, 100.0, "r2")
    assert states(watch) == {"r1": LinkState.UP, "r2": LinkState.ADMIN_DOWN}
    assert (first, via(watch)) == ({"wg0-u2"}, {"wg0-u1"})
    rest(watch, 101.0)
    assert states(watch)["r2"] is LinkState.ADMIN_DOWN
    hear(watch, 101.1, "r1", "r2")
    assert states(watch)["r2"] is LinkState.UP
    assert via(watch) == first
    assert watch.links["r2"].damping.hold == 0.0


def test_a_link_that_the_neighbour_lets_rest_is_left_alike(watch):
    """By its word that it holds the session down (RFC 5880 section 6.8.16)."""
    neighbour_rests(watch, "r1", 100.0)
    assert states(watch)["r1"] is LinkState.ADMIN_DOWN
    hear(watch, 100.5, "r1", "r2")
    assert states(watch)["r1"] is LinkState.UP


def neighbour_rests(watch, name, now):
    session = watch.links[name].session
    session.state, session.remote_state = bfd.State.DOWN, bfd.State.ADMIN_DOWN
    session.diagnostic = bfd.Diagnostic.NEIGHBOUR_DOWN
    judge(watch, now)


def test_a_link_that_does_not_come_back_from_its_rest_is_down(watch):
    """After a while in which nobody need know."""
    neighbour_rests(watch, "r1", 100.0)
    watch.links["r1"].session.remote_state = bfd.State.DOWN
    judge(watch, 100.0 + RESUMES - 0.1)
    assert states(watch)["r1"] is LinkState.ADMIN_DOWN
    judge(watch, 100.0 + RESUMES)
    assert states(watch)["r1"] is LinkState.DOWN


def test_a_link_that_is_down_stays_so_when_it_is_to_rest(watch):
    """Its damping is not forgotten for that."""
    hear(watch, 100.0, "r2")
    rest(watch, 101.0, "r1")
    assert states(watch)["r1"] is LinkState.DOWN


def test_the_only_link_that_is_not_down_is_used_even_at_rest(watch):
    """Whichever went down last: the one at rest may well carry."""
    rest(watch, 100.0, "r1")
    hear(watch, 101.0)
    watch.links["r1"].session.state = bfd.State.ADMIN_DOWN
    assert states(watch) == {"r1": LinkState.ADMIN_DOWN, "r2": LinkState.DOWN}
    assert via(watch) == {"wg0-u1"}


@pytest.mark.parametrize("until", [-1.0, 3600.0])
def test_a_request_that_lapsed_or_is_of_another_time_lets_nothing_rest(watch, until):
    """An apply that died, and a clock that leapt back."""
    rest(watch, 100.0, "r1")
    request = {"neighbours": ["r1"], "until": time.time() + until}
    resting.path(watch.host, "wg0").write_text(json.dumps(request))
    assert watch.rest(101.0)
    assert watch.links["r1"].session.state is bfd.State.DOWN


def test_a_relay_whose_trunks_rest_is_not_left_for_that(watch):
    """Nor is anybody judged by what it forwards to it."""
    watch.links["r2"].session.remote_diagnostic = bfd.Diagnostic.ADMIN_DOWN
    hear(watch, 100.0, "r1", "r2")
    assert states(watch) == {"r1": LinkState.UP, "r2": LinkState.UP}
    assert list(watch.probes(200.0)) == [(watch.links["r2"], watch.links["r1"])]


@pytest.mark.parametrize(
    ("trunk", "said"),
    [
        (LinkState.UP, bfd.Diagnostic.NONE),
        (LinkState.DOWN, bfd.Diagnostic.CONCATENATED_DOWN),
        (LinkState.ADMIN_DOWN, bfd.Diagnostic.ADMIN_DOWN),
    ],
)
def test_a_relay_says_how_its_trunks_are_as_a_leaf_comes_up(tmp_path, trunk, said):
    world = mesh(relay("r1"), relay("r2", "203.0.113.2"), leaf("n"))
    view = plan.make(world, all_facts("r1", "r2", "n"), Register()).views["r1"]
    watch = MeshWatch(FakeHost.below(tmp_path, Kernel()), view)
    watch.links["r2"].state = trunk
    watch.steer()
    session = watch.links["n"].session
    session.state = bfd.State.INIT
    assert session.tick(1.0, 0.5).diagnostic == said


# --- adding a peer anew ----------------------------------------------------------------------------------


class Anew:
    """A node whose watcher adds its peers anew, and what it runs for it. n7 has an endpoint, n8 has none."""

    def __init__(self, monkeypatch, tmp_path):
        self.host = FakeHost.below(tmp_path, Kernel(sysctls=with_ipv6()))
        self.own = keys.ensure(self.host)
        self.ran = []
        monkeypatch.setattr(meshwatch.subprocess, "Popen", lambda argv, **_: self.ran.append(argv))
        monkeypatch.setattr(meshwatch.socket, "if_nametoindex", lambda _name: 7)
        monkeypatch.setattr(meshwatch.random, "choice", lambda known: known[-1])

    def view(self, name):
        peers = (nodeviews.peer(7, endpoint="192.0.2.7:51820", preshared=name), nodeviews.peer(8, preshared=name))
        return replace(nodeviews.leaf(direct=peers, relays=()), keys=(self.own,) if name else ())

    def take_up(self, *names):
        for name in names:
            apply.apply(self.host, self.view(name), given=PRESHARED)

    def tried(self, name, neighbour):
        """The preshared keys that are tried with *neighbour*, by the names of their files, at the first three attempts
        of the watcher of the view with key *name*; None: without one, or nothing is run at all."""
        watch = MeshWatch(self.host, self.view(name))
        found = []
        for _ in range(3):
            self.ran.clear()
            watch._add_anew(watch.links[neighbour])
            words = [word for argv in self.ran for word in argv]
            path = words[words.index("preshared-key") + 1] if "preshared-key" in words else None
            found.append(None if path in (None, "/dev/null") else Path(path).name)
        return found


PRESHARED = {str(preshared.identifier(nodeviews.key(n))): nodeviews.key(n) for n in (101, 102)}
OLD, NEW = sorted(PRESHARED)


@pytest.fixture
def anew(monkeypatch, tmp_path):
    return Anew(monkeypatch, tmp_path)


def test_a_peer_that_is_added_anew_keeps_its_preshared_key(anew):
    """It is removed and added in one command, which names the file; who only answers is left alone."""
    anew.take_up(NEW)
    assert anew.tried(NEW, "n7") == [NEW] * 3
    folder = Store(host=anew.host, mesh="wg0").preshared
    removed = ("wg", "set", "wg0", "peer", nodeviews.key(7), "remove", "peer", nodeviews.key(7))
    assert anew.ran[0][:10] == (*removed, "preshared-key", f"{folder}/{NEW}")
    assert (anew.tried(NEW, "n8"), anew.ran) == ([None] * 3, [])


def test_a_watcher_outlives_files_that_are_damaged(anew, caplog):
    """Its own key, or what the node remembers: the link stays dead until somebody mends them, and all others live."""
    anew.take_up(OLD, NEW)
    (Store(host=anew.host, mesh="wg0").folder / "previous.json").write_text("{")
    assert anew.tried(NEW, "n7") == [None] * 3
    anew.host.key_file.write_text("no key")
    assert anew.tried(NEW, "n7") == [None] * 3
    assert "n7 can't be added anew" in caplog.text


@pytest.mark.parametrize("neighbour", ["n7", "n8"])
@pytest.mark.parametrize(("old", "new"), [(OLD, NEW), (None, NEW), (OLD, None)])
def test_a_dead_link_is_tried_with_the_preshared_key_before_too(anew, old, new, neighbour):
    """For a while after another was taken up: the other end may have been told of none, with the master gone."""
    anew.take_up(old, new)
    assert anew.tried(new, neighbour) == [new, old, old]
    if neighbour == "n8":
        assert "remove" not in anew.ran[0]
    path = Store(host=anew.host, mesh="wg0").folder / "view.json"
    os.utime(path, (time.time() - preshared_files.CHANGING - 1,) * 2)
    assert anew.tried(new, neighbour) == [new if neighbour == "n7" else None] * 3


def test_a_leaf_to_which_a_relay_has_an_uplink_is_not_probed_for_what_it_forwards(tmp_path):
    """It was a relay, or is about to be one; as soon as it is, it is."""
    world = mesh(relay("r1"), relay("r2", "203.0.113.2"), relay("r3", "203.0.113.3"))
    made = plan.make(world, all_facts("r1", "r2", "r3"), Register())
    view = made.views["r1"]
    kinds = {"r2": Kind.UPLINK, "r3": Kind.TRUNK}
    crossing = replace(view, interfaces=tuple(_of_kind(i, kinds) for i in view.interfaces))
    found = MeshWatch(FakeHost.below(tmp_path, Kernel()), crossing)
    assert {name: link.is_relay for name, link in found.links.items()} == {"r2": False, "r3": True}
    session = found.links["r2"].session
    found.update(view)
    assert found.links["r2"].is_relay
    assert found.links["r2"].session is session
    hear(found, 0.0, "r2", "r3")
    found.links["r2"].probed = 1.0
    found.update(crossing)
    hear(found, 1000.0, "r2", "r3")
    assert states(found)["r2"] is LinkState.UP


def _of_kind(interface: Interface, kinds: dict[str, Kind]) -> Interface:
    return replace(interface, kind=kinds[interface.peers[0].node]) if interface.peers else interface
