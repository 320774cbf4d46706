"""The secret of each pair of nodes: no order of runs, silences and rotations leaves two ends apart for long."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.keys import psk, psk_rollover
from saltext_wgmesh.core.keys.psk_rollover import (
    EPOCH_TIMEOUT,
    LAGGARD_RETRY,
    NO_SECRET,
    FleetState,
    Laggard,
    PskRollover,
)
from saltext_wgmesh.core.model.plan import Allocations
from saltext_wgmesh.core.planning import planner
from saltext_wgmesh.core.proof import prove
from tests.unit.harness import worlds

NODES = ("a", "b", "c")


def fleet_state(
    *, acknowledged: str = "abc", pending: str = "", unreachable: str = "", now: float = 10_000.0, members: str = "abc"
) -> FleetState:
    return FleetState(
        members=frozenset(members),
        published=frozenset("abc"),
        acknowledged=frozenset(acknowledged),
        pending=frozenset(pending),
        unreachable=frozenset(unreachable),
        now=now,
    )


ON = PskRollover(epochs={1: "one"})


def test_begin_epoch_of_first_plan_has_no_laggard() -> None:
    """No node has a link yet that could break."""
    first_plan = replace(fleet_state(acknowledged=""), published=frozenset())
    assert psk_rollover.begin_epoch(PskRollover(), "one", first_plan) == PskRollover(epochs={0: NO_SECRET, 1: "one"})


def test_begin_epoch_notifies_all_reachable_nodes() -> None:
    """The old epoch is forgotten when no node is at it."""
    told = psk_rollover.begin_epoch(ON, "two", fleet_state())
    assert {told.secret_for(a, b) for a in NODES for b in NODES} == {"two"}
    assert told.secrets == {"one", "two"}
    assert psk_rollover.record_acks(told, frozenset("abc")) == PskRollover(epochs={2: "two"})


def test_pair_with_unreachable_end_keeps_its_secret() -> None:
    """Until the node can be reached and has applied its published view; all other pairs change."""
    told = psk_rollover.begin_epoch(ON, "two", fleet_state(unreachable="c", acknowledged="ab"))
    assert (told.secret_for("a", "b"), told.secret_for("a", "c"), told.secret_for("c", "a")) == ("two", "one", "one")
    waits = psk_rollover.advance_epoch(told, fleet_state(unreachable="c"))
    assert waits.laggards == {"c": Laggard(epoch=1, notified=False)}
    back = psk_rollover.advance_epoch(waits, fleet_state())
    assert back.secret_for("a", "c") == "two"
    assert psk_rollover.advance_epoch(back, fleet_state()) == PskRollover(epochs={2: "two"})


def test_failed_node_returns_and_is_notified_later() -> None:
    """It returns at the next run. A node that always fails does not cause a generation each minute."""
    told = psk_rollover.begin_epoch(ON, "two", fleet_state())
    back = psk_rollover.advance_epoch(told, fleet_state(acknowledged="ab"))
    assert (back.secret_for("a", "b"), back.secret_for("a", "c")) == ("two", "one")
    assert psk_rollover.advance_epoch(back, fleet_state(now=10_000 + LAGGARD_RETRY - 1)) == back
    assert psk_rollover.advance_epoch(back, fleet_state(now=10_000 + LAGGARD_RETRY)).secret_for("a", "c") == "two"


def test_pending_node_has_until_the_timeout() -> None:
    """A busy node answers late; but a link must not be without a handshake for longer than its session lives."""
    told = psk_rollover.begin_epoch(ON, "two", fleet_state())
    waits = psk_rollover.advance_epoch(
        told, fleet_state(acknowledged="ab", pending="c", now=10_000 + EPOCH_TIMEOUT - 1)
    )
    assert (waits.secret_for("a", "c"), waits.laggards) == ("two", {"c": Laggard(epoch=1, notified=True, since=10_000)})
    assert psk_rollover.advance_epoch(waits, fleet_state(now=10_000 + EPOCH_TIMEOUT)) == PskRollover(epochs={2: "two"})
    late = psk_rollover.advance_epoch(waits, fleet_state(acknowledged="ab", pending="c", now=10_000 + EPOCH_TIMEOUT))
    assert late.secret_for("a", "c") == "one"


def test_off_and_on_keeps_oldest_epoch_per_pair() -> None:
    """Each pair has the secret of the end that has been away for longest."""
    off = psk_rollover.begin_epoch(ON, NO_SECRET, fleet_state(unreachable="c"))
    on = psk_rollover.begin_epoch(off, "two", fleet_state(unreachable="bc"))
    assert (on.secret_for("a", "b"), on.secret_for("a", "c"), on.secret_for("b", "c")) == (NO_SECRET, "one", "one")
    assert on.secrets == {"one", "two"}


def test_node_that_left_is_no_laggard() -> None:
    """A node that left takes its epoch with it."""
    told = psk_rollover.begin_epoch(ON, "two", fleet_state(unreachable="c", acknowledged="ab"))
    assert psk_rollover.advance_epoch(told, fleet_state(members="ab")) == PskRollover(epochs={2: "two"})


def test_drop_lost_forgets_epochs_of_lost_secrets() -> None:
    """Nodes at a lost secret count as being at the current one; without the current secret there are none."""
    told = psk_rollover.begin_epoch(ON, "two", fleet_state(unreachable="c"))
    assert psk_rollover.drop_lost(told, frozenset({"one"})).secret_for("a", "c") == "two"
    assert psk_rollover.drop_lost(told, frozenset({"two"})).secrets == frozenset()
    assert psk_rollover.drop_lost(told, frozenset()) == told


Step = tuple[str, frozenset[str], frozenset[str], frozenset[str], float]


@st.composite
def steps(draw: st.DrawFn) -> Step:
    """A run: another secret or none; the nodes that it can't reach; the nodes that apply what it published; the nodes
    whose acknowledgement is lost; and the seconds until the next run."""
    some = st.sets(st.sampled_from(NODES)).map(frozenset)
    unreachable = draw(some)
    applies = draw(some) - unreachable
    return (
        draw(st.sampled_from(["new", "off", "", "", ""])),
        unreachable,
        applies,
        draw(some),
        draw(st.sampled_from([5.0, 60.0])),
    )


class Fleet:
    """Three nodes, all linked with each other, and their master."""

    def __init__(self) -> None:
        self.state = ON
        self.now = 10_000.0
        self.published = {n: self.view(n) for n in NODES}
        self.has = dict(self.published)
        self.acknowledged, self.pending = frozenset(NODES), frozenset[str]()
        """Nodes that acknowledged their published view; and nodes that were told of it and did not answer."""
        self.told = 0

    def view(self, node: str) -> dict[str, str]:
        return {other: self.state.secret_for(node, other) for other in NODES if other != node}

    def run(
        self, what: str, unreachable: frozenset[str], applies: frozenset[str], silent: frozenset[str], then: float
    ) -> None:
        known = fleet_state(
            acknowledged="".join(self.acknowledged),
            pending="".join(self.pending),
            unreachable="".join(unreachable),
            now=self.now,
        )
        if what:
            self.told += 1
            self.state = psk_rollover.begin_epoch(self.state, NO_SECRET if what == "off" else f"s{self.told}", known)
        else:
            self.state = psk_rollover.advance_epoch(self.state, known)
        new = {n: self.view(n) for n in NODES}
        self.acknowledged -= {n for n in NODES if new[n] != self.published[n]}
        self.published = new
        self.has |= {n: self.published[n] for n in applies}
        self.acknowledged |= applies - silent
        self.pending = (frozenset(NODES) & (silent | unreachable)) - self.acknowledged
        self.state = psk_rollover.record_acks(self.state, self.acknowledged)
        self.now += then

    def apart(self) -> set[frozenset[str]]:
        return {frozenset({a, b}) for a in NODES for b in NODES if a != b and self.has[a][b] != self.has[b][a]}


@settings(max_examples=300)
@given(st.lists(steps(), max_size=12))
def test_any_history_leaves_no_ends_apart(walk: list[Step]) -> None:
    """Two ends are apart only if one did not acknowledge its published view. The first run after EPOCH_TIMEOUT that all
    nodes answer mends that. After some more runs all nodes are at the current epoch, and nothing else is stored."""
    fleet = Fleet()
    for step in walk:
        fleet.run(*step)
        for pair in fleet.apart():
            assert pair - fleet.acknowledged
        assert psk_rollover.rollover_from_dict(psk_rollover.rollover_as_dict(fleet.state)) == fleet.state
    everybody: Step = ("", frozenset(), frozenset(NODES), frozenset(), LAGGARD_RETRY)
    fleet.now += EPOCH_TIMEOUT
    fleet.run(*everybody)
    assert fleet.apart() == set()
    fleet.run(*everybody)
    fleet.run(*everybody)
    assert fleet.state == replace(fleet.state, epochs={fleet.state.current_epoch: fleet.state.secret}, laggards={})


# --- the plan ------------------------------------------------------------------------------------------

WORLD = worlds.mesh(worlds.relay("r1"), worlds.relay("r2", "203.0.113.2"), worlds.leaf("a"), worlds.leaf("b"))
PLAN = planner.plan_mesh(WORLD, worlds.all_facts("r1", "r2", "a", "b"), Allocations())


def derived(name: str, one: str, other: str) -> str:
    return psk.derive_psk(name.encode(), "wg0", one, other)


ANNOTATED = psk_rollover.annotate(PLAN, replace(ON, laggards={"b": Laggard(epoch=1, notified=False)}), derived)


def test_annotated_plan_holds_its_proof() -> None:
    """Each link has a key of its own, and both ends name it. Without a secret the plan is unchanged."""
    assert prove.prove(ANNOTATED) == ()
    peers = [p for v in ANNOTATED.views.values() for i in v.interfaces for p in i.peers]
    assert len({p.psk_ids for p in peers}) == len(PLAN.links) == len(peers) / 2
    assert psk_rollover.annotate(PLAN, PskRollover(), derived) is PLAN


@pytest.mark.parametrize("wrong", [{"psk_ids": ()}, {"psk_ids": ("0" * 16,)}])
def test_prove_different_keys_of_ends_fails(wrong: dict) -> None:
    """Such a plan is not published."""
    view = ANNOTATED.views["a"]
    access, uplink, *rest = view.interfaces
    broken = replace(uplink, peers=(replace(uplink.peers[0], **wrong),))
    views = {**ANNOTATED.views, "a": replace(view, interfaces=(access, broken, *rest))}
    assert [p.message for p in prove.prove(replace(ANNOTATED, views=views))] == [
        "r1 would have another key for their link"
    ]


def test_prove_psk_of_other_public_key_fails() -> None:
    """The node would find no preshared key for the key that it runs."""
    views = {**ANNOTATED.views, "a": replace(ANNOTATED.views["a"], keys=("another",))}
    found = prove.prove(replace(ANNOTATED, views=views))
    assert found
    assert {p.path for p in found} == {"node a"}


@pytest.mark.parametrize("lag", [Laggard(epoch=1, notified=False), Laggard(epoch=1, notified=True)])
def test_laggard_keeps_its_keys_until_notified(lag: Laggard) -> None:
    """Once it is notified, its view is of the current epoch."""
    two = psk_rollover.annotate(PLAN, PskRollover(epochs={1: "one", 2: "two"}, laggards={"b": lag}), derived)
    last = psk_rollover.annotate(PLAN, PskRollover(epochs={2: "two"}), derived)
    assert {n for n, view in two.views.items() if view != last.views[n]} == (
        set() if lag.notified else {"r1", "r2", "b"}
    )
    assert {n for n, view in two.views.items() if view != ANNOTATED.views[n]} == (
        {"a", "b", "r1", "r2"} if lag.notified else {"a", "r1", "r2"}
    )


def test_rollover_from_empty_dict_has_no_psks() -> None:
    """A ledger of an older version has no entry for preshared keys."""
    assert psk_rollover.rollover_from_dict({}) == PskRollover()


def test_node_with_two_keys_has_psk_each() -> None:
    """While it switches between its keys, both ends name the same preshared keys, whichever keys they run."""
    known = worlds.all_facts("r1", "r2", "a", "b")
    following = {n: replace(known[n], next_key=worlds.facts(f"next of {n}").public_key) for n in ("a", "r1")}
    two = psk_rollover.annotate(planner.plan_mesh(WORLD, {**known, **following}, Allocations()), ON, derived)
    assert prove.prove(two) == ()
    a, r1 = two.views["a"], two.views["r1"]
    (near,) = [p for i in a.interfaces for p in i.peers if p.node == "r1"]
    (far,) = [p for i in r1.interfaces for p in i.peers if p.node == "a"]
    for own in a.keys:
        for other in r1.keys:
            found = psk.psk_id_between(a, own, near, other)
            assert found == psk.psk_id(derived("one", own, other))
            assert found == psk.psk_id_between(r1, other, far, own)


@pytest.mark.parametrize(
    "raw",
    [
        {"epochs": {}, "laggards": {}},
        {"epochs": {"3": "s"}, "laggards": {"a": {"epoch": 2, "notified": False, "since": 0.0}}},
    ],
    ids=["no epoch", "unknown epoch"],
)
def test_record_without_needed_epoch_is_refused(raw):
    """A damaged head is found where it is read, and not by a KeyError in the plan."""
    with pytest.raises(ValueError, match="epoch"):
        psk_rollover.rollover_from_dict(raw)
