"""The state of links by their sessions and probes alone: no node, no clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saltext_wgmesh.core.liveness import bfd
from saltext_wgmesh.core.liveness.hold_down import FREE_HOLDS
from saltext_wgmesh.core.liveness.link_report import LinkState, LinkStatus
from saltext_wgmesh.minion.watcher.link_verdict import (
    ADMIN_DOWN_RECOVERY,
    MIN_UP_AFTER_DOWN,
    NEW_LINK_GRACE,
    ONE_WAY_AFTER,
    PROBE_EVERY,
    PROBES,
    STABLE_AFTER,
    discriminator,
    remembered_hold_down,
)
from tests.unit.harness.watcher import EPOCH, Links, access, trunk, uplink

UP, DOWN, MUTE = LinkState.UP, LinkState.DOWN, LinkState.BLACKHOLE
ALL_LOST = PROBES * PROBE_EVERY + 0.01
"""Seconds after which every probe of a row is lost."""


@pytest.fixture
def leaf():
    """A leaf's links to the relays n1 and n2; both are up since second 0."""
    links = Links.of(uplink(1), uplink(2))
    links.sessions(0.0, "n1", "n2")
    assert links.states() == {"n1": UP, "n2": UP}
    return links


def test_new_link_without_session_waits_for_its_grace():
    """Until then it is neither down nor used: its other end may not have applied its view yet."""
    links = Links.of(uplink(1, grace_until=NEW_LINK_GRACE))
    links.evaluate(NEW_LINK_GRACE - 0.1)
    assert links.states() == {"n1": LinkState.NEW}
    links.evaluate(NEW_LINK_GRACE)
    assert links.states() == {"n1": DOWN}


def test_new_link_that_was_up_has_no_grace():
    """A session that has expired is down at once."""
    links = Links.of(uplink(1, grace_until=NEW_LINK_GRACE))
    links.sessions(1.0, "n1")
    links.sessions(2.0)
    assert links.states() == {"n1": DOWN}
    assert links.whys == {"n1": "time_expired"}


def test_changed_state_carries_wall_clock(leaf):
    """The time of the change is in seconds since the epoch. An unchanged state keeps its time."""
    leaf.sessions(100.0, "n2")
    assert (leaf.links["n1"].since, leaf.links["n2"].since) == (EPOCH + 100.0, EPOCH)


def test_returning_link_waits_while_another_carries(leaf):
    """Its other end may be removing and adding its peer, which ends the session once more."""
    leaf.sessions(100.0, "n2")
    leaf.sessions(101.0, "n1", "n2")
    assert leaf.states() == {"n1": DOWN, "n2": UP}
    leaf.sessions(101.0 + MIN_UP_AFTER_DOWN, "n1", "n2")
    assert leaf.states() == {"n1": UP, "n2": UP}
    assert leaf.whys["n1"] == "good for 1.0 s"


def test_first_returning_link_is_used_at_once(leaf):
    """However often it has flapped: waiting would cut the node off."""
    for second in (100.0, 110.0, 120.0):
        leaf.sessions(second, "n2")
        leaf.sessions(second + 2, "n1", "n2")
        leaf.sessions(second + 8, "n1", "n2")
    assert leaf.links["n1"].hold_down.hold > MIN_UP_AFTER_DOWN
    leaf.sessions(130.0)
    leaf.sessions(131.0, "n1")
    assert leaf.states() == {"n1": UP, "n2": DOWN}
    assert leaf.whys["n1"] == "session up"


# --- blackholes ----------------------------------------------------------------------------------------


def test_relay_is_a_blackhole_when_probes_are_lost(leaf):
    """As soon as a whole row of probes has not come back, and not before."""
    assert leaf.probes(100.0) == [("n1", "n2"), ("n2", "n1")]
    leaf.links["n2"].last_probe_reply = 100.5
    leaf.evaluate(100.0 + ALL_LOST - 0.02)
    assert leaf.states() == {"n1": UP, "n2": UP}
    leaf.evaluate(100.0 + ALL_LOST)
    assert leaf.states() == {"n1": MUTE, "n2": UP}
    assert leaf.whys["n1"] == "probes and echoes through the relay are lost"


def test_relay_that_reflects_nothing_takes_no_other_down(leaf):
    """n2 answers no probe. Probes through n1 are lost, and n1 returns echoes: no third node has a say in these."""
    for tick in range(100):
        now = 100.0 + tick * PROBE_EVERY
        leaf.probes(now)
        leaf.links["n2"].last_probe_reply = now
        sent = [link.name for link in leaf.verdict.echoes(now)]
        assert sent == ([] if tick < 2 else ["n1"])
        if sent:
            leaf.links["n1"].last_echo = now
        leaf.evaluate(now)
        assert leaf.states() == {"n1": UP, "n2": UP}


def test_relay_is_named_when_probes_stay_lost(leaf):
    """It returns echoes, so it stays in use. Once a probe returns, it is named no longer."""
    leaf.probes(100.0)
    for link in leaf.links.values():
        link.last_probe_reply = link.last_echo = 100.5
    assert leaf.verdict.path_faults(100.5 + ONE_WAY_AFTER) == ()
    leaf.links["n2"].last_probe_reply = leaf.links["n1"].last_echo = 110.6
    (fault,) = leaf.verdict.path_faults(110.6)
    assert fault.startswith("packets through n1 to another relay and back are lost")
    leaf.evaluate(110.6)
    assert leaf.states() == {"n1": UP, "n2": UP}
    leaf.links["n1"].last_probe_reply = 110.7
    assert leaf.verdict.path_faults(110.7) == ()


def test_echo_ends_a_blackhole(leaf):
    """The relay forwards again, and the one that was to answer the probes is silent still."""
    leaf.probes(100.0)
    leaf.links["n2"].last_probe_reply = 100.5
    leaf.evaluate(100.0 + ALL_LOST)
    assert leaf.states()["n1"] is MUTE
    leaf.probes(102.0)
    leaf.links["n1"].last_echo = leaf.links["n2"].last_probe_reply = 160.0
    leaf.evaluate(160.0)
    assert leaf.states()["n1"] is UP


def test_blackhole_lasts_until_a_probe_returns(leaf):
    """That its session is up proves nothing of what it forwards."""
    leaf.probes(100.0)
    leaf.links["n2"].last_probe_reply = 100.5
    leaf.evaluate(100.0 + ALL_LOST)
    leaf.sessions(101.0, "n1")
    assert leaf.probes(101.0) == []
    leaf.sessions(160.0, "n1")
    assert leaf.states() == {"n1": MUTE, "n2": DOWN}


def test_blackhole_ends_with_a_probe_reply(leaf):
    """The relay is used again after its hold-down."""
    leaf.probes(100.0)
    leaf.links["n2"].last_probe_reply = 102.0
    leaf.evaluate(102.0)
    assert leaf.states() == {"n1": MUTE, "n2": UP}
    leaf.evaluate(102.5)
    assert leaf.states()["n1"] is MUTE
    for link in leaf.links.values():
        link.last_probe_reply = 103.0
    leaf.evaluate(103.0)
    assert leaf.states() == {"n1": UP, "n2": UP}


def test_isolated_relay_is_kept_until_another_is_up(leaf):
    """A relay that has just come back may reach no other relay either."""
    leaf.sessions(100.0, "n2")
    leaf.links["n2"].session.remote_diagnostic = bfd.Diagnostic.CONCATENATED_DOWN
    leaf.sessions(101.0, "n1", "n2")
    assert leaf.states() == {"n1": DOWN, "n2": UP}
    leaf.sessions(101.0 + MIN_UP_AFTER_DOWN, "n1", "n2")
    leaf.sessions(101.1 + MIN_UP_AFTER_DOWN, "n1", "n2")
    assert leaf.states() == {"n1": UP, "n2": MUTE}
    assert leaf.whys["n2"] == "the relay reaches no other relay"


def test_isolated_relay_is_used_when_it_reports_recovery(leaf):
    """What it has said itself it takes back itself: no probe is needed."""
    leaf.links["n2"].session.remote_diagnostic = bfd.Diagnostic.CONCATENATED_DOWN
    leaf.sessions(100.0, "n1", "n2")
    assert leaf.states() == {"n1": UP, "n2": MUTE}
    leaf.links["n2"].session.remote_diagnostic = bfd.Diagnostic.NONE
    leaf.sessions(101.0, "n1", "n2")
    assert leaf.states() == {"n1": UP, "n2": UP}


def test_relay_with_trunks_admin_down_is_kept(leaf):
    """Nor is the other relay judged by what it forwards to it."""
    leaf.links["n2"].session.remote_diagnostic = bfd.Diagnostic.ADMIN_DOWN
    leaf.sessions(100.0, "n1", "n2")
    assert leaf.states() == {"n1": UP, "n2": UP}
    assert leaf.probes(200.0) == [("n2", "n1")]


# --- probes --------------------------------------------------------------------------------------------


def test_drained_relay_is_not_probed_through():
    """It is still a target: whether it forwards shows when it may be stopped."""
    links = Links.of(uplink(1), uplink(2), drained=frozenset({"n1"}))
    links.sessions(0.0, "n1", "n2")
    links.links["n1"].probing_since = 1.0
    assert links.probes(100.0) == [("n2", "n1")]
    assert links.links["n1"].probing_since is None


def test_relay_just_up_is_no_probe_target(leaf):
    """It may not answer yet; until it does, the forwarding of the other is not judged."""
    leaf.sessions(100.0, "n2")
    leaf.sessions(101.0, "n1", "n2")
    assert leaf.probes(101.0 + STABLE_AFTER) == [("n1", "n2")]
    assert leaf.links["n2"].probing_since is None
    assert leaf.probes(101.1 + STABLE_AFTER) == [("n1", "n2"), ("n2", "n1")]


def test_probes_of_four_relays_go_to_two_successors():
    """So each relay is probed through, and each answers, equally often."""
    links = Links.of(*(uplink(number) for number in (1, 2, 3, 4)))
    links.sessions(0.0, "n1", "n2", "n3", "n4")
    assert links.probes(100.0) == [
        ("n1", "n2"),
        ("n1", "n3"),
        ("n2", "n3"),
        ("n2", "n4"),
        ("n3", "n4"),
        ("n3", "n1"),
        ("n4", "n1"),
        ("n4", "n2"),
    ]


def test_probes_of_a_row_keep_their_start(leaf):
    """The start of the row and not the last probe tells when all are lost."""
    leaf.probes(100.0)
    leaf.probes(100.2)
    assert leaf.links["n1"].probing_since == 100.0


def test_only_relay_needs_no_probe_target():
    """No relay can answer, and none has to."""
    links = Links.of(uplink(1))
    links.sessions(0.0, "n1")
    assert links.probes(100.0) == []
    assert links.links["n1"].no_probe_target


@pytest.mark.parametrize(
    ("address", "number"), [("10.100.0.7", 174_325_767), ("fd00:64::7", 1_400_055_789)], ids=["ipv4", "ipv6"]
)
def test_discriminator_of_a_reflector_follows_from_address(address, number):
    """Nodes of different versions must agree on it, so the numbers are written out."""
    assert discriminator(address) == number


# --- administrative down -------------------------------------------------------------------------------


def test_link_held_down_by_neighbour_returns_at_once(leaf):
    """By the neighbour's word that it holds the session down (RFC 5880 section 6.8.16)."""
    leaf.neighbour_holds_down("n1")
    leaf.evaluate(100.0)
    assert leaf.states()["n1"] is LinkState.ADMIN_DOWN
    assert leaf.whys["n1"] == "held down on purpose"
    leaf.sessions(100.5, "n1", "n2")
    assert leaf.states()["n1"] is UP
    assert leaf.links["n1"].hold_down.hold == 0.0


def test_link_not_returning_from_admin_down_is_down(leaf):
    """After a while in which the link counts as held down still."""
    leaf.neighbour_holds_down("n1")
    leaf.evaluate(100.0)
    leaf.links["n1"].session.remote_state = bfd.BfdState.DOWN
    leaf.evaluate(100.0 + ADMIN_DOWN_RECOVERY - 0.1)
    assert leaf.states()["n1"] is LinkState.ADMIN_DOWN
    leaf.evaluate(100.0 + ADMIN_DOWN_RECOVERY)
    assert leaf.states()["n1"] is DOWN


def test_down_link_stays_down_if_held_down(leaf):
    """Else its hold-down would be forgotten."""
    leaf.sessions(100.0, "n2")
    leaf.neighbour_holds_down("n1")
    leaf.evaluate(101.0)
    assert leaf.states()["n1"] is DOWN


def test_neighbour_holding_down_often_is_damped(leaf):
    """In a minute of changes the link takes a bounded number of states, however many packets come."""
    before, changes = leaf.states(), 0
    for step in range(600):
        (leaf.neighbour_holds_down("n1") if step % 2 else leaf.sessions(100.0 + step / 10, "n1", "n2"))
        leaf.links["n1"].session.remote_state = bfd.BfdState.ADMIN_DOWN if step % 2 else bfd.BfdState.UP
        leaf.evaluate(100.0 + step / 10)
        changes += leaf.states() != before
        before = leaf.states()
    assert changes <= 2 * FREE_HOLDS + 8


def test_leaf_flapping_at_only_relay_is_damped():
    """The relay has no other path to it. It is used again within a second, and not for each packet."""
    links, changes = Links.of(access(5)), 0
    before = links.states()
    for step in range(100):
        links.sessions(step / 10, *(["n5"] if step % 2 else []))
        changes += links.states() != before
        before = links.states()
    assert changes <= 2 * 10 + 4
    links.sessions(11.0, "n5")
    links.sessions(12.1, "n5")
    assert links.states() == {"n5": UP}


# --- what a relay announces, and what is remembered ----------------------------------------------------


@pytest.mark.parametrize(
    ("trunk_state", "announced"),
    [
        (UP, bfd.Diagnostic.NONE),
        (DOWN, bfd.Diagnostic.CONCATENATED_DOWN),
        (LinkState.ADMIN_DOWN, bfd.Diagnostic.ADMIN_DOWN),
    ],
)
def test_relay_announces_trunk_state_as_leaf_comes_up(trunk_state, announced):
    """Already in the packet with which the session comes up, and to leaves alone."""
    other_relay = trunk(2)
    other_relay.state = trunk_state
    links = Links.of(other_relay, access(5))
    for link in links.links.values():
        link.session.state = bfd.BfdState.INIT
    links.verdict.announce_path_state()
    assert links.links["n5"].session.tick(1.0, 0.5).diagnostic == announced
    assert links.links["n2"].session.tick(1.0, 0.5).diagnostic == bfd.Diagnostic.NONE


def test_relay_with_one_trunk_up_announces_nothing():
    """It still reaches the others by that one."""
    trunks = trunk(2), trunk(3)
    trunks[0].state, trunks[1].state = DOWN, UP
    links = Links.of(*trunks, access(5))
    links.links["n5"].session.state = bfd.BfdState.UP
    links.verdict.announce_path_state()
    assert links.links["n5"].session.tick(1.0, 0.5).diagnostic == bfd.Diagnostic.NONE


@pytest.mark.parametrize(
    ("state", "seconds_ago", "hold"),
    [(UP, 3600.0, 0.0), (UP, 5.0, 60.0), (DOWN, 3600.0, 60.0)],
    ids=["up for long", "up a moment", "down"],
)
def test_hold_down_is_remembered_unless_long_up(state, seconds_ago, hold):
    """A new watcher goes on with the hold-down that the earlier one reported."""
    now = 1_000.0
    reported = LinkStatus(neighbour="n1", interface="wg0-1", state=state, since=EPOCH - seconds_ago, hold=60.0)
    assert remembered_hold_down(reported, now, EPOCH).went_down(now).hold == hold


def test_hold_down_survives_a_clock_set_back():
    """A report from the future counts as one of now."""
    reported = LinkStatus(neighbour="n1", interface="wg0-1", state=UP, since=EPOCH + 3600, hold=8.0)
    assert remembered_hold_down(reported, 1_000.0, EPOCH).up_at == 1_000.0
    assert remembered_hold_down(replace(reported, state=DOWN), 1_000.0, EPOCH).up_at is None


def test_report_lists_links_by_neighbour(leaf):
    """With what was noted of each."""
    leaf.links["n1"].interval = 300
    report = leaf.verdict.report()
    assert (report.mesh, report.from_watcher, list(report.links)) == ("wg0", True, ["n1", "n2"])
    assert report.links["n1"] == LinkStatus(neighbour="n1", interface="wg0-1", state=UP, since=EPOCH, interval=300)
