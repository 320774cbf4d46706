"""What the plan does with what is down."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core import plan, routes, verify
from saltext_wgmesh.core.errors import PlanError
from saltext_wgmesh.core.health import Health, Trouble
from saltext_wgmesh.core.types import Register, Site
from tests.unit import worlds
from tests.unit.worlds import all_facts, leaf, mesh, relay

LEAVES = tuple(f"n{i}" for i in range(8))
POLICY = mesh(
    relay("r1", "203.0.113.1", "fra"),
    relay("r2", "203.0.113.2", "fra"),
    relay("r3", "203.0.113.3", "nyc"),
    *(leaf(n, "fra", nat=True) for n in LEAVES),
    sites=(Site(name="fra", relays=("r1", "r2"), direct=False), Site(name="nyc", relays=("r3",))),
)
FACTS = all_facts("r1", "r2", "r3", *LEAVES)
DEAD = Health(down=frozenset({"r1"}))
RESTING = Health(resting=frozenset({"r1"}))


def make(health, register, policy=POLICY, facts=FACTS):
    made = plan.make(policy, facts, register, health)
    assert verify.check(made) == ()
    return made


def homes(made):
    return {n: made.members[n].homes for n in LEAVES}


def test_the_leaves_of_a_dead_relay_get_another_and_a_second_from_another_site():
    before = make(Health(), Register())
    after = make(DEAD, before.register)
    assert set(homes(before).values()) == {("r1", "r2"), ("r2", "r1")}
    assert set(homes(after).values()) == {("r2", "r3")}


def test_they_keep_them_when_it_returns_until_the_quiet_period_is_over():
    dead = make(DEAD, make(Health(), Register()).register)
    resting = make(RESTING, dead.register)
    assert homes(resting) == homes(dead)
    assert resting.views["n0"] == dead.views["n0"]
    after = homes(make(Health(), resting.register))
    assert sorted(after.values()) == [("r1", "r2")] * 4 + [("r2", "r1")] * 4


def test_who_can_not_be_told_keeps_the_relays_it_has():
    before = make(Health(), Register())
    after = make(replace(DEAD, silent=frozenset({"n0", "n1"})), before.register)
    assert {n: h for n, h in homes(after).items() if n in ("n0", "n1")} == {n: homes(before)[n] for n in ("n0", "n1")}


def test_one_link_that_is_cut_moves_that_leaf_alone():
    before = make(Health(), Register())
    after = make(Health(cut=frozenset({("n0", "r1")})), before.register)
    assert homes(after) == {**homes(before), "n0": ("r2", "r3")}


def test_a_relay_whose_only_leaf_lost_the_link_is_not_filled_up_from_the_others():
    """Neither while the link is down nor while it is remembered; by the operator's word, as any empty relay."""
    few = mesh(
        *(relay(r, f"203.0.113.{i}") for i, r in enumerate(("r1", "r2"), 1)), *(leaf(n, nat=True) for n in "abc")
    )
    facts = all_facts("r1", "r2", *"abc")
    before = make(Health(), Register(), few, facts)
    (lone,) = (n for n in "abc" if [before.members[m].homes[0] for m in "abc"].count(before.members[n].homes[0]) == 1)
    pair = (lone, before.members[lone].homes[0])
    others = [n for n in "abc" if n != lone]
    during = make(Health(cut=frozenset({pair})), before.register, few, facts)
    after = make(Health(links={pair: Trouble(since=0.0, by=("a",), good_since=1.0)}), during.register, few, facts)
    assert during.members[lone].homes[0] != pair[1]
    assert {n: after.members[n].homes for n in others} == {n: before.members[n].homes for n in others}
    assert {n: during.members[n].homes for n in others} == {n: before.members[n].homes for n in others}
    calm = make(Health(), after.register, few, facts)
    assert {calm.members[n].homes[0] for n in "abc"} == {"r1", "r2"}


def test_a_dead_relay_stays_the_last_choice_where_there_is_no_other():
    """Its return is then noticed at once by the leaves themselves."""
    two = mesh(relay("r1", "203.0.113.1"), relay("r2", "203.0.113.2"), leaf("n0", nat=True), leaf("n1", nat=True))
    facts = all_facts("r1", "r2", "n0", "n1")
    after = make(DEAD, Register(), two, facts)
    assert {after.members[n].homes for n in ("n0", "n1")} == {("r2", "r1")}


def test_where_it_is_the_second_choice_its_return_moves_nobody_either():
    two = mesh(relay("r1", "203.0.113.1"), relay("r2", "203.0.113.2"), leaf("n0", nat=True), leaf("n1", nat=True))
    facts = all_facts("r1", "r2", "n0", "n1")
    dead = make(DEAD, Register(), two, facts)
    assert make(RESTING, dead.register, two, facts).views == dead.views
    assert {make(Health(), dead.register, two, facts).members[n].homes[0] for n in ("n0", "n1")} == {"r1", "r2"}


def test_a_direct_link_that_is_cut_is_kept_and_relayed():
    policy = mesh(relay("r1", "203.0.113.1", "fra"), leaf("n0", "fra"), leaf("n1", "fra"), sites=(Site(name="fra"),))
    after = make(Health(cut=frozenset({("n0", "n1")})), Register(), policy, all_facts("r1", "n0", "n1"))
    view = after.views["n0"]
    target = f"{after.members['n1'].addresses[0]}/32"
    assert next(r.device for r in routes.choose(view) if r.prefix == target) == "wg0-u1"
    assert "n1" in {p.node for p in view.interfaces[0].peers}


def test_a_gateway_that_died_gives_its_subnets_to_the_next():
    subnet = "192.168.7.0/24"
    policy = mesh(
        relay("r1", "203.0.113.1"), leaf("g1", routes=(subnet,)), leaf("g2", routes=(subnet,)), leaf("n0", nat=True)
    )
    facts = all_facts("r1", "g1", "g2", "n0")
    assert make(Health(), Register(), policy, facts).members["g1"].subnets == (subnet,)
    after = make(Health(down=frozenset({"g1"})), Register(), policy, facts)
    assert (after.members["g1"].subnets, after.members["g2"].subnets) == ((), (subnet,))
    assert after.members["g1"].standby_subnets == (subnet,)


@settings(deadline=None, max_examples=60)
@given(worlds.worlds(), st.data())
def test_whatever_is_down_the_plan_holds_its_proof(world, data):
    """Nodes down, resting or silent and links cut at will: a plan that can be made at all can be published."""
    try:
        before = plan.make(world.mesh, world.facts, Register())
    except PlanError:
        assume(False)
    nodes = st.frozensets(st.sampled_from(sorted(before.members) or ["-"]))
    down = data.draw(nodes)
    pairs = [tuple(sorted((link.a, link.b))) for link in before.links]
    health = Health(
        down=down,
        resting=data.draw(nodes) - down,
        silent=data.draw(nodes),
        cut=data.draw(st.frozensets(st.sampled_from(pairs))) if pairs else frozenset(),
    )
    after = plan.make(world.mesh, world.facts, before.register, health)
    assert verify.check(after) == ()
    assert {n: m.addresses for n, m in after.members.items()} == {n: m.addresses for n, m in before.members.items()}
