"""Which secret a pair's key is made from: no order of runs, silences and rotations leaves two ends apart for long."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core import plan, preshared, secrecy, verify
from saltext_wgmesh.core.secrecy import OFF, PATIENCE, RETRY, Lag, Secrecy, Seen
from saltext_wgmesh.core.types import Register
from tests.unit import worlds

NODES = ("a", "b", "c")


def seen(
    *, runs: str = "abc", unanswered: str = "", deaf: str = "", now: float = 10_000.0, members: str = "abc"
) -> Seen:
    return Seen(
        members=frozenset(members),
        published=frozenset("abc"),
        runs=frozenset(runs),
        unanswered=frozenset(unanswered),
        deaf=frozenset(deaf),
        now=now,
    )


ON = Secrecy(stages={1: "one"})


def test_a_first_plan_has_nobody_who_lags() -> None:
    """Nobody has a link yet that could break."""
    nobody = replace(seen(runs=""), published=frozenset())
    assert secrecy.start(Secrecy(), "one", nobody) == Secrecy(stages={0: OFF, 1: "one"})


def test_all_are_told_at_once_and_then_done() -> None:
    """The old stage is forgotten when nobody has it any more."""
    told = secrecy.start(ON, "two", seen())
    assert {told.meant(a, b) for a in NODES for b in NODES} == {"two"}
    assert told.secrets == {"one", "two"}
    assert secrecy.conclude(told, frozenset("abc")) == Secrecy(stages={2: "two"})


def test_a_pair_of_which_one_end_is_deaf_stays_and_others_go_on() -> None:
    """Until it is heard, and runs what is published."""
    told = secrecy.start(ON, "two", seen(deaf="c", runs="ab"))
    assert (told.meant("a", "b"), told.meant("a", "c"), told.meant("c", "a")) == ("two", "one", "one")
    waits = secrecy.proceed(told, seen(deaf="c"))
    assert waits.lags == {"c": Lag(stage=1, told=False)}
    back = secrecy.proceed(waits, seen())
    assert back.meant("a", "c") == "two"
    assert secrecy.proceed(back, seen()) == Secrecy(stages={2: "two"})


def test_who_was_told_in_vain_goes_back_with_its_neighbours_and_is_told_again_later() -> None:
    """At the very next run; a node that always fails does not make a generation each minute."""
    told = secrecy.start(ON, "two", seen())
    back = secrecy.proceed(told, seen(runs="ab"))
    assert (back.meant("a", "b"), back.meant("a", "c")) == ("two", "one")
    assert secrecy.proceed(back, seen(now=10_000 + RETRY - 1)) == back
    assert secrecy.proceed(back, seen(now=10_000 + RETRY)).meant("a", "c") == "two"


def test_who_did_not_answer_has_a_while_for_it() -> None:
    """A busy node answers late; but one link must not be without a handshake for longer than its session lives."""
    told = secrecy.start(ON, "two", seen())
    waits = secrecy.proceed(told, seen(runs="ab", unanswered="c", now=10_000 + PATIENCE - 1))
    assert (waits.meant("a", "c"), waits.lags) == ("two", {"c": Lag(stage=1, told=True, since=10_000)})
    assert secrecy.proceed(waits, seen(now=10_000 + PATIENCE)) == Secrecy(stages={2: "two"})
    late = secrecy.proceed(waits, seen(runs="ab", unanswered="c", now=10_000 + PATIENCE))
    assert late.meant("a", "c") == "one"


def test_turned_off_and_on_again_while_somebody_is_away() -> None:
    """Each pair has what the end that is longest away has."""
    off = secrecy.start(ON, OFF, seen(deaf="c"))
    on = secrecy.start(off, "two", seen(deaf="bc"))
    assert (on.meant("a", "b"), on.meant("a", "c"), on.meant("b", "c")) == (OFF, "one", "one")
    assert on.secrets == {"one", "two"}


def test_nobody_waits_for_who_left() -> None:
    """A deleted node takes its stage along."""
    told = secrecy.start(ON, "two", seen(deaf="c", runs="ab"))
    assert secrecy.proceed(told, seen(members="ab")) == Secrecy(stages={2: "two"})


def test_secrets_that_are_gone_are_not_waited_for() -> None:
    """Who has keys of one is taken to the last; without the last, all begins anew."""
    told = secrecy.start(ON, "two", seen(deaf="c"))
    assert secrecy.without(told, frozenset({"one"})).meant("a", "c") == "two"
    assert secrecy.without(told, frozenset({"two"})).secrets == frozenset()
    assert secrecy.without(told, frozenset()) == told


Step = tuple[str, frozenset[str], frozenset[str], frozenset[str], float]


@st.composite
def steps(draw: st.DrawFn) -> Step:
    """A run: another secret or none; who is deaf to it; who of the others applies what it published, who of these could
    not say so, and how long it was until the next one."""
    some = st.sets(st.sampled_from(NODES)).map(frozenset)
    deaf = draw(some)
    applies = draw(some) - deaf
    return (
        draw(st.sampled_from(["new", "off", "", "", ""])),
        deaf,
        applies,
        draw(some),
        draw(st.sampled_from([5.0, 60.0])),
    )


class Fleet:
    """Three nodes, all linked with each other, and a master that tells them."""

    def __init__(self) -> None:
        self.state = ON
        self.now = 10_000.0
        self.published = {n: self.view(n) for n in NODES}
        self.has = dict(self.published)
        self.said, self.unanswered = frozenset(NODES), frozenset[str]()
        """Who said that it runs what is published; and who was asked, and did not answer."""
        self.told = 0

    def view(self, node: str) -> dict[str, str]:
        return {other: self.state.meant(node, other) for other in NODES if other != node}

    def run(
        self, what: str, deaf: frozenset[str], applies: frozenset[str], silent: frozenset[str], then: float
    ) -> None:
        known = seen(runs="".join(self.said), unanswered="".join(self.unanswered), deaf="".join(deaf), now=self.now)
        if what:
            self.told += 1
            self.state = secrecy.start(self.state, OFF if what == "off" else f"s{self.told}", known)
        else:
            self.state = secrecy.proceed(self.state, known)
        new = {n: self.view(n) for n in NODES}
        self.said -= {n for n in NODES if new[n] != self.published[n]}
        self.published = new
        self.has |= {n: self.published[n] for n in applies}
        self.said |= applies - silent
        self.unanswered = (frozenset(NODES) & (silent | deaf)) - self.said
        self.state = secrecy.conclude(self.state, self.said)
        self.now += then

    def apart(self) -> set[frozenset[str]]:
        return {frozenset({a, b}) for a in NODES for b in NODES if a != b and self.has[a][b] != self.has[b][a]}


@settings(max_examples=300)
@given(st.lists(steps(), max_size=12))
def test_whatever_happens_no_two_ends_stay_apart(walk: list[Step]) -> None:
    """Two ends are apart only if one did not say that it runs what is published; the first run after its PATIENCE that
    all hear mends it, and when all have heard long enough, all have the last stage and nothing else is remembered. The
    ledger keeps all of it."""
    fleet = Fleet()
    for step in walk:
        fleet.run(*step)
        for pair in fleet.apart():
            assert pair - fleet.said
        assert secrecy.from_dict(secrecy.as_dict(fleet.state)) == fleet.state
    everybody: Step = ("", frozenset(), frozenset(NODES), frozenset(), RETRY)
    fleet.now += PATIENCE
    fleet.run(*everybody)
    assert fleet.apart() == set()
    fleet.run(*everybody)
    fleet.run(*everybody)
    assert fleet.state == replace(fleet.state, stages={fleet.state.last: fleet.state.secret}, lags={})


# --- the plan ------------------------------------------------------------------------------------------

WORLD = worlds.mesh(worlds.relay("r1"), worlds.relay("r2", "203.0.113.2"), worlds.leaf("a"), worlds.leaf("b"))
PLAN = plan.make(WORLD, worlds.all_facts("r1", "r2", "a", "b"), Register())


def derived(name: str, one: str, other: str) -> str:
    return preshared.derive(name.encode(), "wg0", one, other)


MARKED = secrecy.mark(PLAN, replace(ON, lags={"b": Lag(stage=1, told=False)}), derived)


def test_a_marked_plan_holds_its_proof_and_differs_in_nothing_else() -> None:
    """Each link has a key of its own, and both ends name it."""
    assert verify.check(MARKED) == ()
    peers = [p for v in MARKED.views.values() for i in v.interfaces for p in i.peers]
    assert len({p.preshared for p in peers}) == len(PLAN.links) == len(peers) / 2
    assert secrecy.mark(PLAN, Secrecy(), derived) is PLAN


@pytest.mark.parametrize("wrong", [{"preshared": ()}, {"preshared": ("0" * 16,)}])
def test_two_ends_with_different_keys_are_caught(wrong: dict) -> None:
    """Such a plan is not published."""
    view = MARKED.views["a"]
    access, uplink, *rest = view.interfaces
    broken = replace(uplink, peers=(replace(uplink.peers[0], **wrong),))
    views = {**MARKED.views, "a": replace(view, interfaces=(access, broken, *rest))}
    assert [p.what for p in verify.check(replace(MARKED, views=views))] == ["r1 would have another key for their link"]


def test_a_key_for_another_public_key_is_caught() -> None:
    """The node would find none for the one that it runs."""
    views = {**MARKED.views, "a": replace(MARKED.views["a"], keys=("another",))}
    found = verify.check(replace(MARKED, views=views))
    assert found
    assert {p.where for p in found} == {"node a"}


@pytest.mark.parametrize("lag", [Lag(stage=1, told=False), Lag(stage=1, told=True)])
def test_a_node_that_lags_has_other_keys_than_it_is_meant_to_have(lag: Lag) -> None:
    """Unless it is told: then its view is of the last stage."""
    two = secrecy.mark(PLAN, Secrecy(stages={1: "one", 2: "two"}, lags={"b": lag}), derived)
    last = secrecy.mark(PLAN, Secrecy(stages={2: "two"}), derived)
    assert {n for n, view in two.views.items() if view != last.views[n]} == (set() if lag.told else {"r1", "r2", "b"})
    assert {n for n, view in two.views.items() if view != MARKED.views[n]} == (
        {"a", "b", "r1", "r2"} if lag.told else {"a", "r1", "r2"}
    )


def test_the_ledger_of_an_older_version_has_no_preshared_keys() -> None:
    """It says nothing of them."""
    assert secrecy.from_dict({}) == Secrecy()


def test_a_node_with_two_keys_has_a_preshared_key_for_each_pair_of_them() -> None:
    """While it turns from one to the other, whatever its neighbours run; both ends name the same."""
    known = worlds.all_facts("r1", "r2", "a", "b")
    following = {n: replace(known[n], next_key=worlds.facts(f"next of {n}").public_key) for n in ("a", "r1")}
    two = secrecy.mark(plan.make(WORLD, {**known, **following}, Register()), ON, derived)
    assert verify.check(two) == ()
    a, r1 = two.views["a"], two.views["r1"]
    (near,) = [p for i in a.interfaces for p in i.peers if p.node == "r1"]
    (far,) = [p for i in r1.interfaces for p in i.peers if p.node == "a"]
    for own in a.keys:
        for other in r1.keys:
            found = preshared.between(a, own, near, other)
            assert found == preshared.identifier(derived("one", own, other))
            assert found == preshared.between(r1, other, far, own)
