"""The verdict on a node needs most of all that should hear it, whatever fewer than half of them say, and when."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.liveness import mesh_health
from saltext_wgmesh.core.liveness.link_report import LinkState
from saltext_wgmesh.core.liveness.mesh_health import HOLD_DOWN, Health, update

UP, DOWN = LinkState.UP, LinkState.DOWN
RELAYS, LEAVES = ("r1", "r2"), tuple("abcdefg")
HUB = {
    **{r: frozenset({*RELAYS, *LEAVES} - {r}) for r in RELAYS},
    **{leaf: frozenset(RELAYS) for leaf in LEAVES},
}
FULL = {n: frozenset({*RELAYS, *LEAVES} - {n}) for n in (*RELAYS, *LEAVES)}
NODES = sorted(HUB)


def reports_of(around, states):
    """Reports in which each node of *states* gives all of its neighbours that state."""
    return {node: dict.fromkeys(around[node], state) for node, state in states.items()}


answers = st.dictionaries(st.sampled_from(NODES), st.sampled_from(LinkState))


@settings(max_examples=200, deadline=None)
@given(data=st.data(), around=st.sampled_from([HUB, FULL]))
def test_minority_takes_no_node_down(data: st.DataObject, around: dict[str, frozenset[str]]) -> None:
    """Liars are fewer than half of the witnesses of each node. All others say the truth, or nothing, or say it late."""
    count = 1 if around is HUB else 3
    liars = data.draw(st.sets(st.sampled_from(LEAVES), max_size=3) | st.sets(st.sampled_from(NODES), max_size=count))
    found, now = Health(), 0.0
    for _ in range(data.draw(st.integers(1, 5))):
        now += data.draw(st.floats(0, 700))
        honest = data.draw(st.sets(st.sampled_from(sorted({*NODES} - liars))))
        # Of its link to a liar an honest node says that it is down: the liar sees to that.
        reports = {n: {o: DOWN if o in liars else UP for o in around[n]} for n in honest}
        reports |= {liar: data.draw(answers) for liar in liars}
        assert mesh_health.confirmed_down(found, around, reports) <= liars
        found = update(found, around, reports, NODES, now)
        assert found.down_nodes <= liars


def test_two_fast_answers_of_nine_decide_nothing() -> None:
    """They call all their links down before anybody else answers."""
    reports = reports_of(FULL, {"a": DOWN, "b": DOWN})
    assert mesh_health.confirmed_down(Health(), FULL, reports) == frozenset()
    assert update(Health(), FULL, reports, NODES, 1.0).down_nodes == frozenset()


def test_node_without_accepted_key_is_no_witness() -> None:
    """Its vote is not waited for."""
    reports = {n: {"r1": DOWN, "r2": UP} for n in "abc"} | {"r2": {"r1": DOWN}}
    assert update(Health(), HUB, reports, NODES, 1.0).down_nodes == frozenset()
    accepted = {*NODES} - {*"fg"}
    assert update(Health(), HUB, reports, NODES, 1.0, accepted).down_nodes == {"r1"}


def test_node_that_is_down_is_no_witness() -> None:
    """With most leaves switched off, a dead relay is found by those that are left."""
    off = reports_of(HUB, {"r1": UP, "r2": UP})
    for relay in RELAYS:
        off[relay] |= dict.fromkeys("cdefg", DOWN)
    before = update(Health(), HUB, off, NODES, 1.0)
    assert before.down_nodes == {*"cdefg"}
    dead = {n: {"r1": DOWN, "r2": UP} for n in "ab"} | {"r2": {"r1": DOWN, **dict.fromkeys("cdefg", DOWN)}}
    assert update(before, HUB, dead, NODES, 2.0).down_nodes == {"r1", *"cdefg"}


def test_site_that_dies_at_once_is_down() -> None:
    """The witnesses of each of its nodes are dead too, but for the minority that the relay's verdict frees."""
    left = {n: {"r1": DOWN, "r2": UP} for n in "abcd"} | {"r2": {**dict.fromkeys("abcd", UP), "r1": DOWN}}
    left["r2"] |= dict.fromkeys("efg", DOWN)
    found = update(Health(), HUB, left, NODES, 1.0)
    assert found.down_nodes == {"r1"}
    assert found.down_links == {(leaf, "r2") for leaf in "efg"}


def test_minority_keeps_no_node_down_or_flapping() -> None:
    """Their word neither ends an outage nor begins another, whether the others answer or not."""
    before = update(
        Health(), HUB, reports_of(HUB, dict.fromkeys(("r2", *"abcde"), DOWN)) | {"r2": {"r1": DOWN}}, NODES, 1.0
    )
    assert "r1" in before.down_nodes
    early = update(before, HUB, {"f": {"r1": UP}, "g": {"r1": UP}}, NODES, 2.0)
    assert early.nodes["r1"].up_since is None
    back = {n: {"r1": UP, "r2": UP} for n in "abcde"} | {"f": {"r1": DOWN}, "g": {"r1": DOWN}}
    found = update(early, HUB, back, NODES, 3.0)
    found = update(found, HUB, {"f": {"r1": DOWN}, "g": {"r1": DOWN}}, NODES, 4.0)
    assert (found.nodes["r1"].up_since, found.nodes["r1"].flaps) == (3.0, 1)
    assert "r1" not in update(found, HUB, back, NODES, 4.0 + HOLD_DOWN).down_nodes


def test_site_whose_witnesses_are_mute_is_down() -> None:
    """Most of the mesh dies at once. The few that are left decide when the dead have answered nothing for long."""
    site = frozenset({"r1", *"cdefg"})
    left = {n: {"r1": DOWN, "r2": UP} for n in "ab"} | {"r2": {"r1": DOWN, "a": UP, "b": UP}}
    left["r2"] |= dict.fromkeys("cdefg", DOWN)
    assert update(Health(), HUB, left, NODES, 1.0).down_nodes == frozenset()
    assert update(Health(), HUB, left, NODES, 1.0, mute=site).down_nodes == site


def test_mute_node_without_living_neighbour_is_down() -> None:
    """Both relays of its leaves die with a site."""
    around = {"r1": frozenset("ar"), "r2": frozenset("ar"), "r": frozenset({"r1", "r2"}), "a": frozenset({"r1", "r2"})}
    found = update(Health(), around, {"r": dict.fromkeys(("r1", "r2"), DOWN)}, around, 1.0, mute={"r1", "r2", "a"})
    assert found.down_nodes == {"r1", "r2", "a"}


def test_answer_of_mute_node_counts() -> None:
    """It has its vote again at once."""
    reports = reports_of(FULL, {"a": DOWN, "b": DOWN}) | reports_of(FULL, dict.fromkeys(("r1", "r2", "c", "d"), UP))
    assert update(Health(), FULL, reports, NODES, 1.0, mute=NODES).down_nodes <= {"a", "b"}
