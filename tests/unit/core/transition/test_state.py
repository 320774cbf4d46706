"""The transitional state of a mesh: its links, the nodes that it waits for, and its plain form."""

from __future__ import annotations

import pytest

from saltext_wgmesh.core.model.plan import AccessSocket
from saltext_wgmesh.core.model.policy import Endpoint
from saltext_wgmesh.core.transition.gateway_move import GatewayMove, Stage
from saltext_wgmesh.core.transition.state import (
    NO_TRANSITION,
    RoleChange,
    Transition,
    relays_in_order,
    transition_as_dict,
    transition_from_dict,
)

SOCKET = AccessSocket(listen_port=7000, endpoint=Endpoint(host="192.0.2.1", port=7001), interface="wg0")
PLAIN_SOCKET = AccessSocket(listen_port=51820, endpoint=None, interface="wg1")
MOVE = GatewayMove(old="gw1", new="gw2", stage=Stage.FIRST_RELAY)
CHANGE = RoleChange(socket=SOCKET, relays=("r1", "r2"), unrouted_relays=("r3",), trunk_linked_relays=("r1", "r3"))
FULL = Transition(
    previous_relays={"b": ("r2", "r1")},
    unrouted_relays={"a": ("r3",), "b": ("r3",)},
    previous_direct_links=frozenset({("a", "c")}),
    previous_sockets={"d": SOCKET, "e": PLAIN_SOCKET},
    dual_addresses={"f": ("10.0.0.1", "10.0.0.2")},
    former_networks=("10.0.0.0/24",),
    waiting_nodes=frozenset({"w"}),
    gateway_moves={"192.168.7.0/24": MOVE},
    unproven_relays=frozenset({"r4"}),
    role_changes={"x": CHANGE},
)
MEMBERS, RELAYS = ("a", "b", "c", "z", "r1", "r2"), ("r1", "r2")


def test_links_are_node_pairs_in_order() -> None:
    """Links to previous and unrouted relays, and direct links; each once."""
    assert FULL.links() == [("a", "c"), ("a", "r3"), ("b", "r1"), ("b", "r2"), ("b", "r3")]
    assert NO_TRANSITION.links() == []


@pytest.mark.parametrize(
    ("transition", "expected"),
    [
        pytest.param(NO_TRANSITION, set(), id="none"),
        pytest.param(Transition(previous_relays={"b": ("r2",)}), {"b"}, id="previous relays"),
        pytest.param(Transition(unrouted_relays={"a": ("r3",)}), {"a"}, id="unrouted relays"),
        pytest.param(Transition(previous_direct_links=frozenset({("a", "c")})), {"a", "c"}, id="direct link"),
        pytest.param(Transition(previous_sockets={"z": SOCKET}), set(RELAYS), id="socket: all relays"),
        pytest.param(Transition(unproven_relays=frozenset({"r2"})), set(RELAYS), id="new relay: all relays"),
        pytest.param(Transition(dual_addresses={"a": ("10.0.0.1",)}), set(MEMBERS), id="address: all nodes"),
        pytest.param(Transition(gateway_moves={"192.168.7.0/24": MOVE}), set(MEMBERS), id="gateway: all nodes"),
        pytest.param(Transition(role_changes={"x": CHANGE}), {"x", "r1", "r2", "r3"}, id="role: node and relays"),
    ],
)
def test_nodes_each_kind_needs_its_reports(transition: Transition, expected: set[str]) -> None:
    """The nodes whose reports the next step needs, for each kind of change alone."""
    assert transition.nodes(MEMBERS, RELAYS) == expected


def test_describe_names_all_that_is_in_transition() -> None:
    """Links as ``a--b``, all else by its own name, in one sorted list."""
    assert FULL.describe() == [
        "10.0.0.0/24",
        "192.168.7.0/24",
        "a--c",
        "a--r3",
        "b--r1",
        "b--r2",
        "b--r3",
        "d",
        "e",
        "f",
        "r4",
        "w",
        "x",
    ]
    assert NO_TRANSITION.describe() == []


@pytest.mark.parametrize("transition", [NO_TRANSITION, FULL], ids=["none", "every kind"])
def test_from_dict_plain_form_is_the_transition(transition: Transition) -> None:
    """``transition_from_dict`` is the inverse of ``transition_as_dict``; an empty mapping is no transition."""
    assert transition_from_dict(transition_as_dict(transition)) == transition
    assert transition_from_dict({}) == NO_TRANSITION


def test_bool_is_false_only_without_transition() -> None:
    """A plan without anything in transition is the goal."""
    assert FULL
    assert not Transition()


def test_role_change_without_relays_leaves_all_lists() -> None:
    """A relay that is lost leaves each of the three lists."""
    assert CHANGE.without({"r1", "r3"}) == RoleChange(socket=SOCKET, relays=("r2",))


def test_relays_in_order_puts_previous_relays_last() -> None:
    """A relay of both lists keeps its previous position, so that a packet's position only grows."""
    assert relays_in_order(("r1", "r2", "r3"), ("r2", "r4")) == ("r1", "r3", "r2", "r4")
