"""Who gets another key, and when it may turn to it: the decisions by themselves."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core import rotation
from saltext_wgmesh.core.rotation import AGAIN, NOTHING, PATIENCE, TELL_AGAIN, Look, Rotation

DAY = 86_400


# --- any order of events -------------------------------------------------------------------------------


@dataclass
class Mesh:
    """A mesh of names: what each node runs, has and has acknowledged, and what the master published."""

    neighbours: dict[str, frozenset[str]]
    relays: frozenset[str]
    now: float = 1000.0
    rotation: Rotation = NOTHING
    runs_next: set[str] = field(default_factory=set)
    next_keys: dict[str, str] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)
    held: dict[str, str] = field(default_factory=dict)
    published: dict[str, tuple] = field(default_factory=dict)
    """Node → its view: its neighbours' keys, and whether it has the turn."""
    has: dict[str, tuple] = field(default_factory=dict)
    """The same as the node holds it."""

    def keys(self, node: str) -> frozenset[str]:
        """What its neighbours are to take."""
        if node in self.finished:
            return frozenset({f"{node} new"})
        return frozenset({f"{node} old", *([f"{node} new"] if node in self.next_keys else [])})

    def look(self) -> Look:
        runs = {n for n in self.neighbours if self.has.get(n) == self.published.get(n)}
        return Look(
            neighbours=self.neighbours,
            relays=self.relays,
            next_keys=dict(self.next_keys),
            held=dict(self.held),
            runs=runs,
            now=self.now,
        )

    def converge(self) -> None:
        """A run of the master."""
        self.rotation = rotation.step(self.rotation, self.look())
        self.held = dict(self.next_keys)
        for node, others in self.neighbours.items():
            self.published[node] = (frozenset((o, self.keys(o)) for o in others), node in self.rotation.turns)

    def apply(self, node: str) -> None:
        """The node takes up what is published for it."""
        self.has[node] = self.published[node]
        if self.has[node][1] and node in self.next_keys:
            self.runs_next.add(node)
        elif node not in self.finished:
            self.runs_next.discard(node)

    def report(self, node: str) -> None:
        """The node says what it runs; one that the master wants to make a key has made it."""
        if node in self.runs_next:
            self.finished.add(node)
            self.next_keys.pop(node, None)
        elif node in self.rotation.wanted:
            self.next_keys[node] = f"{node} new"

    def assert_whole(self) -> None:
        """Each takes, of every neighbour, the key that this one runs."""
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
def test_in_any_order_the_links_hold_and_all_turn_in_the_end(mesh: Mesh, data: st.DataObject) -> None:
    """Nodes apply, report and stay silent as it comes; never have two neighbours the turn untaken, nor two relays."""
    names = sorted(mesh.neighbours)
    mesh.rotation = rotation.want(NOTHING, data.draw(st.sets(st.sampled_from(names), min_size=1)))
    wanted = set(mesh.rotation.wanted)
    acts = st.tuples(st.sampled_from(["apply", "report", "converge", "converge", "wait"]), st.sampled_from(names))
    for act, node in data.draw(st.lists(acts, max_size=60)):
        if act == "apply":
            mesh.apply(node)
        elif act == "report":
            mesh.report(node)
        elif act == "wait":
            mesh.now += PATIENCE / 2
        else:
            mesh.converge()
            untaken = {n for n in mesh.rotation.turns if mesh.has[n] != mesh.published[n]}
            assert len(untaken & mesh.relays) <= 1
            assert not [n for n in untaken if mesh.neighbours[n] & untaken]
        mesh.assert_whole()
    for _ in range(4 * len(names) + 4):
        mesh.now += AGAIN
        for node in names:
            mesh.report(node)
        mesh.converge()
        for node in names:
            mesh.apply(node)
            mesh.assert_whole()
    assert mesh.finished == wanted
    assert (mesh.rotation.turns, mesh.rotation.wanted) == ({}, {})


# --- who waits for what --------------------------------------------------------------------------------


def around(**others: str) -> dict[str, frozenset[str]]:
    """Node → its neighbours, which are given as one word each."""
    found: dict[str, set[str]] = {}
    for node, words in others.items():
        for other in words.split():
            found.setdefault(node, set()).add(other)
            found.setdefault(other, set()).add(node)
    return {n: frozenset(s) for n, s in found.items()}


STAR = Look(
    neighbours=around(a="r1 r2", b="r1 r2", r1="r2"),
    relays={"r1", "r2"},
    next_keys={"a": "A", "r1": "R1", "r2": "R2"},
    held={"a": "A", "r1": "R1", "r2": "R2"},
    runs={"a", "b", "r1", "r2"},
    now=500.0,
)


def test_one_relay_turns_first_and_the_others_know_why_they_wait() -> None:
    step = rotation.step(NOTHING, STAR)
    assert step.turns == {"r1": 500.0}
    later = replace(STAR, runs=STAR.runs - {"r1"})
    assert rotation.waiting(step, later) == {
        "a": "not acknowledged by r1; r1 turns first",
        "r1": "it turns to its new key",
        "r2": "not acknowledged by r1; r1 turns first",
    }


def test_who_took_the_turn_holds_nobody_up() -> None:
    """Though it has not published yet that it did, since another of its meshes has not turned."""
    step = replace(NOTHING, turns={"r1": 400.0})
    assert rotation.step(step, STAR).turns == {"r1": 400.0, "r2": 500.0}
    assert rotation.waiting(step, STAR)["r1"] == "it runs its new key, and is to say so"
    assert rotation.unsaid(step, STAR) == {"r1"}


def test_a_key_that_is_not_published_yet_gives_no_turn() -> None:
    """Nor does another than the one published."""
    look = replace(STAR, held={"a": "A0", "r2": "R2"})
    assert rotation.step(NOTHING, look).turns == {"r2": 500.0}
    assert rotation.waiting(NOTHING, look)["a"] == "its new key is to be published"


def test_a_node_that_has_not_acknowledged_is_waited_for_unless_it_is_down() -> None:
    look = replace(STAR, runs={"a", "r1", "r2"})
    assert rotation.step(NOTHING, look).turns == {"a": 500.0}
    assert rotation.step(NOTHING, replace(look, down={"b"})).turns == {"r1": 500.0}


def test_a_turn_that_is_not_taken_is_withdrawn_for_a_while() -> None:
    """After PATIENCE seconds, or when its node goes down."""
    behind = replace(STAR, runs=STAR.runs - {"r1"})
    given_at = replace(NOTHING, turns={"r1": 500.0 - PATIENCE})
    assert rotation.step(given_at, behind).turns == {"r1": 500.0 - PATIENCE}
    late = replace(behind, now=501.0)
    assert rotation.step(given_at, late).turns == {}
    assert rotation.step(given_at, late).rests == {"r1": 501.0 + AGAIN}
    down = rotation.step(replace(NOTHING, turns={"r1": 499.0}), replace(behind, down={"r1"}))
    assert down.rests == {"r1": 500.0 + AGAIN}
    assert "r1" not in down.turns
    rested = replace(NOTHING, rests={"r1": 600.0})
    assert rotation.step(rested, STAR).turns == {"r2": 500.0}
    assert rotation.step(rested, replace(STAR, now=600.0)).turns == {"r1": 600.0}


def test_nobody_turns_who_would_cut_off_a_leaf() -> None:
    """With one of its two relays down, or the link to it, the other stays as it is; so does the leaf itself."""
    look = replace(STAR, down={"r2"}, runs=STAR.runs - {"r2"}, next_keys={"a": "A", "r1": "R1"})
    look = replace(look, held=look.next_keys)
    assert rotation.step(NOTHING, look).turns == {}
    assert rotation.waiting(NOTHING, look) == {
        "a": "a has no other relay that is up",
        "r1": "a, b has no other relay that is up",
    }
    cut = replace(STAR, cut={("b", "r2")})
    assert rotation.step(NOTHING, cut).turns == {"r2": 500.0}


def test_where_there_is_one_relay_it_turns_all_the_same() -> None:
    look = Look(neighbours=around(a="r1"), relays={"r1"}, next_keys={"r1": "K"}, held={"r1": "K"}, runs={"a", "r1"})
    assert set(rotation.step(NOTHING, look).turns) == {"r1"}


def test_a_node_out_of_the_plan_is_forgotten() -> None:
    known = Rotation(wanted={"x": 0.0}, turns={"y": 1.0}, rests={"z": 900.0})
    empty = replace(STAR, next_keys={}, held={})
    assert rotation.step(known, empty) == NOTHING


# --- who is wanted -------------------------------------------------------------------------------------


def test_each_node_is_wanted_once_in_a_period_and_not_all_at_once() -> None:
    """Of 300 nodes looked at each hour for a period of 30 days, none before the first hour is over."""
    nodes = [f"node{i}" for i in range(300)]
    known = rotation.due(NOTHING, nodes, 30 * DAY, 1_000_000.0)
    assert known.wanted == {}
    times: dict[str, list[int]] = {}
    for hour in range(1, 2 * 720 + 1):
        known = rotation.due(known, nodes, 30 * DAY, 1_000_000.0 + hour * 3600)
        for node in known.wanted:
            times.setdefault(node, []).append(hour)
        known = replace(known, wanted={})
    assert {len(hours) for hours in times.values()} == {2}
    assert {second - first for first, second in times.values()} <= {719, 720, 721}
    days = [sum(1 for hours in times.values() if hours[0] // 24 == day) for day in range(30)]
    assert max(days) < 25


def test_a_period_that_is_new_begins_now() -> None:
    """Also one that another replaces; without one nobody is due, and nothing is remembered."""
    nodes = [f"node{i}" for i in range(50)]
    known = rotation.due(NOTHING, nodes, 30 * DAY, 1e9)
    shorter = rotation.due(known, nodes, 7 * DAY, 1e9 + 20 * DAY)
    assert shorter.wanted == {}
    assert rotation.due(shorter, nodes, 0, 1e9 + 21 * DAY) == NOTHING


def test_who_is_wanted_is_told_now_and_then() -> None:
    """Not while it is down; and no more once it has made a key."""
    known = rotation.want(NOTHING, ["b", "a"])
    assert rotation.to_tell(known, {"b"}, 1000.0) == ("a",)
    known = rotation.told(known, ["a"], 1000.0)
    assert rotation.to_tell(known, set(), 1000.0) == ("b",)
    assert rotation.to_tell(known, set(), 1000.0 + TELL_AGAIN) == ("a", "b")
    assert rotation.want(known, ["a"]) == known
    assert rotation.step(known, STAR).wanted == {"b": 0.0}


def test_what_is_remembered_comes_back_from_the_ledger() -> None:
    known = Rotation(wanted={"a": 1.0}, turns={"b": 2.0}, rests={"c": 3.0}, period=60, looked_at=4.0)
    assert rotation.from_dict(rotation.as_dict(known)) == known
    assert rotation.as_dict(NOTHING) == {}
    assert rotation.from_dict({}) == NOTHING
