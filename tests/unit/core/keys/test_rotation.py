"""Key rotation as pure decisions: which node gets another key, and when it may switch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.keys import rotation
from saltext_wgmesh.core.keys.rotation import (
    ACTIVATION_BACKOFF,
    ACTIVATION_TIMEOUT,
    BLOCK_LIMIT,
    NO_ROTATION,
    NOTIFY_INTERVAL,
    Rotation,
    RotationInput,
)

DAY = 86_400


# --- any order of events -------------------------------------------------------------------------------


@dataclass
class Mesh:
    """A mesh of names: the key that each node runs, its view, and what the master published."""

    neighbours: dict[str, frozenset[str]]
    relays: frozenset[str]
    now: float = 1000.0
    rotation: Rotation = NO_ROTATION
    runs_next: set[str] = field(default_factory=set)
    next_keys: dict[str, str] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)
    held: dict[str, str] = field(default_factory=dict)
    published: dict[str, tuple] = field(default_factory=dict)
    """Node → its view: its neighbours' keys, and whether it is activated."""
    has: dict[str, tuple] = field(default_factory=dict)
    """The same as the node holds it."""

    def keys(self, node: str) -> frozenset[str]:
        """The keys that the node's neighbours must accept."""
        if node in self.finished:
            return frozenset({f"{node} new"})
        return frozenset({f"{node} old", *([f"{node} new"] if node in self.next_keys else [])})

    def look(self) -> RotationInput:
        runs = {n for n in self.neighbours if self.has.get(n) == self.published.get(n)}
        return RotationInput(
            neighbours=self.neighbours,
            relays=self.relays,
            next_keys=dict(self.next_keys),
            published_next_keys=dict(self.held),
            acknowledged=runs,
            now=self.now,
        )

    def converge(self) -> None:
        """A run of the master."""
        self.rotation = rotation.advance(self.rotation, self.look())
        self.held = dict(self.next_keys)
        for node, others in self.neighbours.items():
            self.published[node] = (frozenset((o, self.keys(o)) for o in others), node in self.rotation.activated)

    def apply(self, node: str) -> None:
        """The node applies its published view."""
        self.has[node] = self.published[node]
        if self.has[node][1] and node in self.next_keys:
            self.runs_next.add(node)
        elif node not in self.finished:
            self.runs_next.discard(node)

    def report(self, node: str) -> None:
        """The node publishes the key that it runs; a node that is requested to create a key has created it."""
        if node in self.runs_next:
            self.finished.add(node)
            self.next_keys.pop(node, None)
        elif node in self.rotation.requested:
            self.next_keys[node] = f"{node} new"

    def assert_whole(self) -> None:
        """Each node accepts the key that each of its neighbours runs."""
        for node, others in self.neighbours.items():
            taken = dict(self.has[node][0])
            for other in others:
                runs = f"{other} new" if other in self.runs_next else f"{other} old"
                assert runs in taken[other], f"{node} does not take what {other} runs"


@st.composite
def meshes(draw: st.DrawFn) -> Mesh:
    """Some relays, all linked; leaves of one or two of them, some linked directly."""
    relays = [f"r{i}" for i in range(draw(st.integers(1, 3)))]
    leaves = [f"n{i}" for i in range(draw(st.integers(1, 5)))]
    pairs = {(a, b) for a in relays for b in relays if a < b}
    for leaf in leaves:
        pairs |= {(leaf, r) for r in draw(st.lists(st.sampled_from(relays), min_size=1, max_size=2, unique=True))}
    pairs |= set(draw(st.lists(st.tuples(st.sampled_from(leaves), st.sampled_from(leaves)), max_size=3)))
    around: dict[str, set[str]] = {n: set() for n in relays + leaves}
    for a, b in pairs:
        if a != b:
            around[a].add(b)
            around[b].add(a)
    made = Mesh(neighbours={n: frozenset(others) for n, others in around.items()}, relays=frozenset(relays))
    made.converge()
    for node in made.neighbours:
        made.apply(node)
    return made


@settings(max_examples=150, deadline=None)
@given(meshes(), st.data())
def test_rotation_any_order_keeps_links_and_ends(mesh: Mesh, data: st.DataObject) -> None:
    """Nodes apply, report and stay silent in any order.

    Neither two neighbours nor two relays switch at the same time.
    """
    names = sorted(mesh.neighbours)
    mesh.rotation = rotation.request(NO_ROTATION, data.draw(st.sets(st.sampled_from(names), min_size=1)))
    wanted = set(mesh.rotation.requested)
    acts = st.tuples(st.sampled_from(["apply", "report", "converge", "converge", "wait"]), st.sampled_from(names))
    for act, node in data.draw(st.lists(acts, max_size=60)):
        if act == "apply":
            mesh.apply(node)
        elif act == "report":
            mesh.report(node)
        elif act == "wait":
            mesh.now += ACTIVATION_TIMEOUT / 2
        else:
            mesh.converge()
            untaken = {n for n in mesh.rotation.activated if mesh.has[n] != mesh.published[n]}
            assert len(untaken & mesh.relays) <= 1
            assert not [n for n in untaken if mesh.neighbours[n] & untaken]
        mesh.assert_whole()
    for _ in range(4 * len(names) + 4):
        mesh.now += ACTIVATION_BACKOFF
        for node in names:
            mesh.report(node)
        mesh.converge()
        for node in names:
            mesh.apply(node)
            mesh.assert_whole()
    assert mesh.finished == wanted
    assert (mesh.rotation.activated, mesh.rotation.requested) == ({}, {})


# --- reasons to wait -----------------------------------------------------------------------------------


def around(**others: str) -> dict[str, frozenset[str]]:
    """Node → its neighbours, which are given as one word each."""
    found: dict[str, set[str]] = {}
    for node, words in others.items():
        for other in words.split():
            found.setdefault(node, set()).add(other)
            found.setdefault(other, set()).add(node)
    return {n: frozenset(s) for n, s in found.items()}


STAR = RotationInput(
    neighbours=around(a="r1 r2", b="r1 r2", r1="r2"),
    relays={"r1", "r2"},
    next_keys={"a": "A", "r1": "R1", "r2": "R2"},
    published_next_keys={"a": "A", "r1": "R1", "r2": "R2"},
    acknowledged={"a", "b", "r1", "r2"},
    now=500.0,
)


def test_advance_activates_one_relay_first() -> None:
    """All other nodes have the reason why they wait."""
    step = rotation.advance(NO_ROTATION, STAR)
    assert step.activated == {"r1": 500.0}
    later = replace(STAR, acknowledged=STAR.acknowledged - {"r1"})
    assert rotation.blockers(step, later) == {
        "a": "not acknowledged by r1; r1 is switching",
        "r1": "it is switching to its new key",
        "r2": "not acknowledged by r1; r1 is switching",
    }


def test_switched_node_blocks_no_other() -> None:
    """Even if it has not published that yet, since another of its meshes has not switched."""
    step = replace(NO_ROTATION, activated={"r1": 400.0})
    assert rotation.advance(step, STAR).activated == {"r1": 400.0, "r2": 500.0}
    assert rotation.blockers(step, STAR)["r1"] == "it runs its new key and has not published that yet"
    assert rotation.unconfirmed(step, STAR) == {"r1"}


def test_unpublished_next_key_is_not_activated() -> None:
    """The published next key must be the one that the node has."""
    look = replace(STAR, published_next_keys={"a": "A0", "r2": "R2"})
    assert rotation.advance(NO_ROTATION, look).activated == {"r2": 500.0}
    assert rotation.blockers(NO_ROTATION, look)["a"] == "its new key is not published yet"


def test_unacknowledged_neighbour_blocks_unless_down() -> None:
    """A neighbour that is down can't acknowledge, and no node waits for it."""
    look = replace(STAR, acknowledged={"a", "r1", "r2"})
    assert rotation.advance(NO_ROTATION, look).activated == {"a": 500.0}
    assert rotation.advance(NO_ROTATION, replace(look, down={"b"})).activated == {"r1": 500.0}


def test_activation_not_taken_is_withdrawn_with_backoff() -> None:
    """After ACTIVATION_TIMEOUT, or when the node goes down."""
    behind = replace(STAR, acknowledged=STAR.acknowledged - {"r1"})
    given_at = replace(NO_ROTATION, activated={"r1": 500.0 - ACTIVATION_TIMEOUT})
    assert rotation.advance(given_at, behind).activated == {"r1": 500.0 - ACTIVATION_TIMEOUT}
    late = replace(behind, now=501.0)
    assert rotation.advance(given_at, late).activated == {}
    assert rotation.advance(given_at, late).backed_off_until == {"r1": 501.0 + ACTIVATION_BACKOFF}
    down = rotation.advance(replace(NO_ROTATION, activated={"r1": 499.0}), replace(behind, down={"r1"}))
    assert down.backed_off_until == {"r1": 500.0 + ACTIVATION_BACKOFF}
    assert "r1" not in down.activated
    rested = replace(NO_ROTATION, backed_off_until={"r1": 600.0})
    assert rotation.advance(rested, STAR).activated == {"r2": 500.0}
    assert rotation.advance(rested, replace(STAR, now=600.0)).activated == {"r1": 600.0}


def test_node_that_would_isolate_leaf_is_blocked() -> None:
    """With one of the leaf's two relays or its link down, the other relay keeps its key; so does the leaf itself."""
    look = replace(STAR, down={"r2"}, acknowledged=STAR.acknowledged - {"r2"}, next_keys={"a": "A", "r1": "R1"})
    look = replace(look, published_next_keys=look.next_keys)
    assert rotation.advance(NO_ROTATION, look).activated == {}
    assert rotation.blockers(NO_ROTATION, look) == {
        "a": "a has no other relay that is up",
        "r1": "a, b has no other relay that is up",
    }
    cut = replace(STAR, down_links={("b", "r2")})
    assert rotation.advance(NO_ROTATION, cut).activated == {"r2": 500.0}


def test_only_relay_of_mesh_is_activated() -> None:
    """A mesh with one relay has no second path at any time."""
    look = RotationInput(
        neighbours=around(a="r1"),
        relays={"r1"},
        next_keys={"r1": "K"},
        published_next_keys={"r1": "K"},
        acknowledged={"a", "r1"},
    )
    assert set(rotation.advance(NO_ROTATION, look).activated) == {"r1"}


def test_node_outside_plan_is_forgotten() -> None:
    """Its request, activation and backoff are dropped."""
    known = Rotation(requested={"x": 0.0}, activated={"y": 1.0}, backed_off_until={"z": 900.0})
    empty = replace(STAR, next_keys={}, published_next_keys={})
    assert rotation.advance(known, empty) == NO_ROTATION


# --- requests ------------------------------------------------------------------------------------------


def test_request_due_spreads_nodes_over_period() -> None:
    """300 nodes are checked each hour for a period of 30 days; none is requested before the first hour is over."""
    nodes = [f"node{i}" for i in range(300)]
    known = rotation.request_due(NO_ROTATION, nodes, 30 * DAY, 1_000_000.0)
    assert known.requested == {}
    times: dict[str, list[int]] = {}
    for hour in range(1, 2 * 720 + 1):
        known = rotation.request_due(known, nodes, 30 * DAY, 1_000_000.0 + hour * 3600)
        for node in known.requested:
            times.setdefault(node, []).append(hour)
        known = replace(known, requested={})
    assert {len(hours) for hours in times.values()} == {2}
    assert {second - first for first, second in times.values()} <= {719, 720, 721}
    days = [sum(1 for hours in times.values() if hours[0] // 24 == day) for day in range(30)]
    assert max(days) < 25


def test_request_due_changed_period_begins_now() -> None:
    """Without a period no node is due, and nothing is stored."""
    nodes = [f"node{i}" for i in range(50)]
    known = rotation.request_due(NO_ROTATION, nodes, 30 * DAY, 1e9)
    shorter = rotation.request_due(known, nodes, 7 * DAY, 1e9 + 20 * DAY)
    assert shorter.requested == {}
    assert rotation.request_due(shorter, nodes, 0, 1e9 + 21 * DAY) == NO_ROTATION


def test_to_notify_repeats_until_key_exists() -> None:
    """Not while the node is down, and no longer once it has created a key."""
    known = rotation.request(NO_ROTATION, ["b", "a"])
    assert rotation.to_notify(known, {"b"}, 1000.0) == ("a",)
    known = rotation.mark_notified(known, ["a"], 1000.0)
    assert rotation.to_notify(known, set(), 1000.0) == ("b",)
    assert rotation.to_notify(known, set(), 1000.0 + NOTIFY_INTERVAL) == ("a", "b")
    assert rotation.request(known, ["a"]) == known
    assert rotation.advance(known, STAR).requested == {"b": 0.0}


def test_rotation_survives_the_ledger() -> None:
    """``rotation_from_dict`` is the inverse of ``rotation_as_dict``."""
    known = Rotation(requested={"a": 1.0}, activated={"b": 2.0}, backed_off_until={"c": 3.0}, period=60, checked_at=4.0)
    assert rotation.rotation_from_dict(rotation.rotation_as_dict(known)) == known
    assert rotation.rotation_as_dict(NO_ROTATION) == {}
    assert rotation.rotation_from_dict({}) == NO_ROTATION


# --- nodes that never acknowledge ----------------------------------------------------------------------


def blocked(now: float, **changes: object) -> RotationInput:
    """A relay that is to get another key, of which the leaf n1 never acknowledges anything."""
    known = {
        "neighbours": {"r1": frozenset({"r2", "n1"}), "r2": frozenset({"r1", "n1"}), "n1": frozenset({"r1", "r2"})},
        "relays": {"r1", "r2"},
        "next_keys": {"r1": "next"},
        "published_next_keys": {"r1": "next"},
        "acknowledged": {"r1", "r2"},
        "now": now,
    }
    return RotationInput(**{**known, **changes})  # type: ignore[arg-type]


def test_silent_leaf_blocks_rotation_limited_time() -> None:
    """Neither by its silence nor by the word that it has no other relay."""
    for changes in ({}, {"acknowledged": {"r1", "r2", "n1"}, "down_links": {("n1", "r2")}}):
        found = NO_ROTATION
        for now in (1000.0, 1000.0 + BLOCK_LIMIT):
            found = rotation.advance(found, blocked(now, **changes))
            assert not found.activated
        assert rotation.rotation_from_dict(rotation.rotation_as_dict(found)) == found
        found = rotation.advance(found, blocked(1001.0 + BLOCK_LIMIT, **changes))
        assert found.activated == {"r1": 1001.0 + BLOCK_LIMIT}


def test_forced_rotation_waits_for_no_leaf() -> None:
    """Whether it was asked for before or after the node made its next key; and the next rotation waits again."""
    early = rotation.advance(rotation.force(NO_ROTATION, ["r1"]), blocked(1000.0, next_keys={}, published_next_keys={}))
    late = rotation.force(rotation.advance(NO_ROTATION, blocked(1000.0)), ["r1"])
    for found in (early, late):
        found = rotation.advance(found, blocked(1001.0))
        assert set(found.activated) == {"r1"}
        found = rotation.advance(found, blocked(1002.0, next_keys={}, published_next_keys={}))
        assert not found.open_since
        assert not rotation.advance(found, blocked(1003.0)).activated
