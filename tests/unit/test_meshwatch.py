"""When a link that was down is used again, and links at rest."""

from __future__ import annotations

import json
import time

import pytest

from saltext_wgmesh.core import bfd, plan
from saltext_wgmesh.core.linkstate import LinkState
from saltext_wgmesh.core.types import Register
from saltext_wgmesh.minion import resting
from saltext_wgmesh.minion.meshwatch import RESUMES, RETURNED, MeshWatch

from .fakehost import FakeHost, Kernel
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
