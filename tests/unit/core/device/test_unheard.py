"""Whether a node hears a neighbour, and the cause that the counters show if it hears none."""

from __future__ import annotations

from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltext_wgmesh.core.device.state import PeerStats
from saltext_wgmesh.core.device.unheard import explain_silence, hears_any, tunnels
from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState, LinkStatus
from tests.nodeviews import key, leaf, peer, relay

CARRYING = (LinkState.UP, LinkState.ADMIN_DOWN)
STATES = st.fixed_dictionaries({"n1": st.sampled_from(LinkState), "n2": st.sampled_from(LinkState)})


def stats(
    number: int, *, sent: int = 0, received: int = 0, handshake_at: int | None = None, endpoint: str | None = None
) -> PeerStats:
    """The counters of relay *number* on its uplink."""
    return PeerStats(
        device=f"wg0-u{number}",
        public_key=key(number),
        endpoint=endpoint,
        handshake_at=handshake_at,
        received=received,
        sent=sent,
    )


def report(*, from_watcher: bool = True, session_up: bool = False, **states: LinkState) -> LinkReport:
    """A report of these states."""
    links = {
        n: LinkStatus(neighbour=n, interface=f"wg0-u{n[1:]}", state=state, since=1.0, session_up=session_up)
        for n, state in states.items()
    }
    return LinkReport(mesh="wg0", from_watcher=from_watcher, links=MappingProxyType(links))


@given(STATES)
def test_node_hears_what_watcher_reports(states):
    """The watcher's word decides whatever WireGuard counts: packets must pass inside the tunnel."""
    found = tunnels(leaf(), [stats(1, handshake_at=5, received=92), stats(2, handshake_at=5, received=92)])
    assert hears_any(found, report(**states)) == any(state in CARRYING for state in states.values())


def test_link_in_hold_down_is_heard():
    """Such a link carries packets, though no route uses it yet."""
    assert hears_any(tunnels(leaf(), []), report(n1=LinkState.DOWN, session_up=True))


@pytest.mark.parametrize(
    ("handshake_at", "states", "heard"),
    [(None, {}, False), (7, {}, True), (7, {"n1": LinkState.DOWN}, False), (None, {"n1": LinkState.UP}, False)],
    ids=["no handshake", "handshake", "stale", "only not stale"],
)
def test_handshake_counts_without_watcher(handshake_at, states, heard):
    """The beacon calls a link up that was never used, so its word counts against a link only."""
    found = tunnels(leaf(relays=(1,)), [stats(1, handshake_at=handshake_at)])
    assert hears_any(found, report(from_watcher=False, **states)) is heard
    assert hears_any(found, None) is (handshake_at is not None)


def test_node_without_neighbours_hears_enough():
    """The first node of a mesh waits for no other."""
    assert hears_any(tunnels(leaf(relays=()), []), None)


@given(st.lists(st.integers(0, 200), min_size=1, max_size=8, unique=True), st.data())
def test_silence_names_cause_and_counts_links(numbers, data):
    """Each neighbour that is shown comes with both counters or the bytes sent, and the others are counted."""
    view = relay(leaves=tuple(peer(n) for n in numbers), trunks=())
    counted = [
        PeerStats(
            device="wg0",
            public_key=key(n),
            endpoint=data.draw(st.sampled_from([None, f"192.0.2.{n}:4{n:04}"])),
            handshake_at=data.draw(st.sampled_from([None, 9])),
            received=data.draw(st.integers(0, 500)),
            sent=data.draw(st.integers(0, 500)),
        )
        for n in numbers
    ]
    text = explain_silence(view, tunnels(view, counted))
    assert text.startswith(f"wg0: 0 of {len(numbers)} links up: ")
    for one in counted[:3]:
        assert f"{one.sent} bytes sent" in text
    assert ("more" in text) == (len(numbers) > 3)


@pytest.mark.parametrize(
    ("counters", "cause"),
    [
        ({"sent": 148}, "n1 (192.0.2.10:51820) did not answer 148 bytes sent; is UDP 51820 open there?"),
        (
            {},
            "n1 (192.0.2.10:51820) got no packet (0 bytes sent, 0 bytes received); "
            "is there a route to it, and does the watcher run?",
        ),
        (
            {"sent": 92, "received": 148, "endpoint": "198.51.100.1:4000"},
            "n1 (198.51.100.1:4000) completed no handshake (92 bytes sent, 148 bytes received); "
            "is UDP 4000 open there?",
        ),
        (
            {"sent": 300, "received": 92, "handshake_at": 9},
            "n1 (192.0.2.10:51820) answers WireGuard, but no link is up inside the tunnel "
            "(300 bytes sent, 92 bytes received); do firewalls drop packets on wg0-u1, here or there?",
        ),
    ],
    ids=["no answer", "no route", "one way", "inside"],
)
def test_leaf_names_port_of_relay(counters, cause):
    """The cause follows from what was sent, received and completed."""
    view = leaf(relays=(1,))
    assert explain_silence(view, tunnels(view, [stats(1, **counters)])) == f"wg0: 0 of 1 links up: {cause}"


def test_relay_names_its_own_port():
    """A neighbour without an endpoint must call, so the port to open is this node's."""
    view = relay(leaves=(peer(7),), trunks=())
    counted = PeerStats(device="wg0", public_key=key(7), endpoint=None, handshake_at=None, received=0, sent=0)
    found = explain_silence(view, tunnels(view, [counted]))
    assert found.endswith("n7 did not call (0 bytes sent, 0 bytes received); is UDP 51820 open here?")


def test_missing_peer_is_named():
    """A peer that the kernel has not can't answer."""
    view = leaf(relays=(1,))
    assert "n1 (192.0.2.10:51820) is no peer of wg0-u1: run" in explain_silence(view, tunnels(view, []))
