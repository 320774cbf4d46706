"""Plans for a mesh in which nodes or links are down."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.device import route_selection
from saltext_wgmesh.core.errors import PlanError
from saltext_wgmesh.core.liveness.mesh_health import Health, Outage
from saltext_wgmesh.core.model.plan import Allocations
from saltext_wgmesh.core.model.policy import Site
from saltext_wgmesh.core.planning import planner
from saltext_wgmesh.core.proof import prove
from tests.unit.harness import worlds
from tests.unit.harness.worlds import all_facts, leaf, mesh, relay

LEAVES = tuple(f"n{i}" for i in range(8))
POLICY = mesh(
    relay("r1", "203.0.113.1", "fra"),
    relay("r2", "203.0.113.2", "fra"),
    relay("r3", "203.0.113.3", "nyc"),
    *(leaf(n, "fra", nat=True) for n in LEAVES),
    sites=(Site(name="fra", relays=("r1", "r2"), direct=False), Site(name="nyc", relays=("r3",))),
)
FACTS = all_facts("r1", "r2", "r3", *LEAVES)
R1_DOWN = Health(down_nodes=frozenset({"r1"}))
R1_RECOVERING = Health(recovering=frozenset({"r1"}))


def make(health, allocations, policy=POLICY, facts=FACTS):
    made = planner.plan_mesh(policy, facts, allocations, health)
    assert prove.prove(made) == ()
    return made


def relays_of(made):
    """Return leaf → its relays."""
    return {n: made.members[n].relays for n in LEAVES}


def test_leaves_of_down_relay_get_another():
    """The other relay of the site becomes first, and the second comes from another site."""
    before = make(Health(), Allocations())
    after = make(R1_DOWN, before.allocations)
    assert set(relays_of(before).values()) == {("r1", "r2"), ("r2", "r1")}
    assert set(relays_of(after).values()) == {("r2", "r3")}


def test_leaves_stay_while_old_relay_recovers():
    """No view changes while the relay recovers; after that the leaves are balanced again."""
    down = make(R1_DOWN, make(Health(), Allocations()).allocations)
    recovering = make(R1_RECOVERING, down.allocations)
    assert relays_of(recovering) == relays_of(down)
    assert recovering.views["n0"] == down.views["n0"]
    after = relays_of(make(Health(), recovering.allocations))
    assert sorted(after.values()) == [("r1", "r2")] * 4 + [("r2", "r1")] * 4


def test_unresponsive_leaf_keeps_its_relays():
    """A leaf that can't be given a new view keeps the relays of its old one."""
    before = make(Health(), Allocations())
    after = make(replace(R1_DOWN, unresponsive=frozenset({"n0", "n1"})), before.allocations)
    assert {n: h for n, h in relays_of(after).items() if n in ("n0", "n1")} == {
        n: relays_of(before)[n] for n in ("n0", "n1")
    }


def test_down_link_moves_its_leaf_only():
    """A link that is down changes the relays of one leaf."""
    before = make(Health(), Allocations())
    after = make(Health(down_links=frozenset({("n0", "r1")})), before.allocations)
    assert relays_of(after) == {**relays_of(before), "n0": ("r2", "r3")}


def test_relay_emptied_by_down_link_stays_empty():
    """No other leaf moves to the relay while the link is down or recovering; then the leaves are balanced."""
    few = mesh(
        *(relay(r, f"203.0.113.{i}") for i, r in enumerate(("r1", "r2"), 1)), *(leaf(n, nat=True) for n in "abc")
    )
    facts = all_facts("r1", "r2", *"abc")
    before = make(Health(), Allocations(), few, facts)
    (lone,) = (n for n in "abc" if [before.members[m].relays[0] for m in "abc"].count(before.members[n].relays[0]) == 1)
    pair = (lone, before.members[lone].relays[0])
    others = [n for n in "abc" if n != lone]
    during = make(Health(down_links=frozenset({pair})), before.allocations, few, facts)
    after = make(
        Health(links={pair: Outage(since=0.0, reporters=("a",), up_since=1.0)}), during.allocations, few, facts
    )
    assert during.members[lone].relays[0] != pair[1]
    assert {n: after.members[n].relays for n in others} == {n: before.members[n].relays for n in others}
    assert {n: during.members[n].relays for n in others} == {n: before.members[n].relays for n in others}
    calm = make(Health(), after.allocations, few, facts)
    assert {calm.members[n].relays[0] for n in "abc"} == {"r1", "r2"}


def test_down_relay_is_last_choice_without_alternative():
    """The leaves keep a link to the relay, so they notice themselves when it is up again."""
    two = mesh(relay("r1", "203.0.113.1"), relay("r2", "203.0.113.2"), leaf("n0", nat=True), leaf("n1", nat=True))
    facts = all_facts("r1", "r2", "n0", "n1")
    after = make(R1_DOWN, Allocations(), two, facts)
    assert {after.members[n].relays for n in ("n0", "n1")} == {("r2", "r1")}


def test_recovering_second_relay_moves_no_leaf():
    """A relay that is the second choice is used as before, until it has recovered."""
    two = mesh(relay("r1", "203.0.113.1"), relay("r2", "203.0.113.2"), leaf("n0", nat=True), leaf("n1", nat=True))
    facts = all_facts("r1", "r2", "n0", "n1")
    down = make(R1_DOWN, Allocations(), two, facts)
    assert make(R1_RECOVERING, down.allocations, two, facts).views == down.views
    assert {make(Health(), down.allocations, two, facts).members[n].relays[0] for n in ("n0", "n1")} == {"r1", "r2"}


def test_down_direct_link_stays_and_is_relayed():
    """The peer stays in the view, and the route uses the relay."""
    policy = mesh(relay("r1", "203.0.113.1", "fra"), leaf("n0", "fra"), leaf("n1", "fra"), sites=(Site(name="fra"),))
    after = make(Health(down_links=frozenset({("n0", "n1")})), Allocations(), policy, all_facts("r1", "n0", "n1"))
    view = after.views["n0"]
    target = f"{after.members['n1'].addresses[0]}/32"
    assert next(r.device for r in route_selection.select_routes(view) if r.prefix == target) == "wg0-u1"
    assert "n1" in {p.node for p in view.interfaces[0].peers}


def test_subnet_of_down_gateway_moves_to_next():
    """The gateway that is down becomes a standby gateway."""
    subnet = "192.168.7.0/24"
    policy = mesh(
        relay("r1", "203.0.113.1"), leaf("g1", routes=(subnet,)), leaf("g2", routes=(subnet,)), leaf("n0", nat=True)
    )
    facts = all_facts("r1", "g1", "g2", "n0")
    assert make(Health(), Allocations(), policy, facts).members["g1"].subnets == (subnet,)
    after = make(Health(down_nodes=frozenset({"g1"})), Allocations(), policy, facts)
    assert (after.members["g1"].subnets, after.members["g2"].subnets) == ((), (subnet,))
    assert after.members["g1"].standby_subnets == (subnet,)


@settings(deadline=None, max_examples=60)
@given(worlds.worlds(), st.data())
def test_plan_in_any_health_passes_its_proof(world, data):
    """Nodes down, recovering or unresponsive and links down: any plan can be published, and keeps addresses."""
    try:
        before = planner.plan_mesh(world.mesh, world.facts, Allocations())
    except PlanError:
        assume(False)
    nodes = st.frozensets(st.sampled_from(sorted(before.members) or ["-"]))
    down_nodes = data.draw(nodes)
    pairs = [tuple(sorted((link.a, link.b))) for link in before.links]
    health = Health(
        down_nodes=down_nodes,
        recovering=data.draw(nodes) - down_nodes,
        unresponsive=data.draw(nodes),
        down_links=data.draw(st.frozensets(st.sampled_from(pairs))) if pairs else frozenset(),
    )
    after = planner.plan_mesh(world.mesh, world.facts, before.allocations, health)
    assert prove.prove(after) == ()
    assert {n: m.addresses for n, m in after.members.items()} == {n: m.addresses for n, m in before.members.items()}
