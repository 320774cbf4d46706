"""When a link that was down is used again."""

from __future__ import annotations

import pytest

from saltext_wgmesh.core import bfd, plan
from saltext_wgmesh.core.linkstate import LinkState
from saltext_wgmesh.core.types import Register
from saltext_wgmesh.minion.meshwatch import RETURNED, MeshWatch

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
