"""What is down now: no link counts as up on the strength of missing answers."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from saltext_wgmesh.core.liveness.down_now import down_now, is_coming_up
from saltext_wgmesh.core.liveness.link_report import LinkState
from saltext_wgmesh.core.liveness.mesh_health import Health

NODES = ("a", "b", "c", "r1")
FAULTLESS = (LinkState.UP, LinkState.ADMIN_DOWN)


@st.composite
def meshes(draw):
    """Links between some nodes, the states that some of the nodes report, and an earlier health."""
    pairs = draw(st.sets(st.sampled_from(list(combinations(NODES, 2)))))
    around = {n: {other for pair in pairs if n in pair for other in pair if other != n} for n in NODES}
    answering = draw(st.sets(st.sampled_from(NODES)))
    states = {
        n: {o: draw(st.sampled_from(LinkState)) for o in sorted(around[n]) if draw(st.booleans())}
        for n in sorted(answering)
    }
    down = draw(st.frozensets(st.sampled_from(NODES), max_size=1))
    links = (
        frozenset(pair for pair in draw(st.frozensets(st.sampled_from(sorted(pairs)))) if not down & set(pair))
        if pairs
        else frozenset()
    )
    return pairs, states, Health(down_nodes=down, down_links=links)


@given(meshes())
def test_link_is_down_unless_reported_up(mesh):
    """Each link is covered, by itself or by one of its ends, unless an end calls it up and none anything else."""
    pairs, states, health = mesh
    found = down_now(NODES, pairs, health, states)
    for a, b in pairs:
        told = [states[x][y] for x, y in ((a, b), (b, a)) if y in states.get(x, {})]
        is_up = bool(told) and all(state in FAULTLESS for state in told)
        covered = (a, b) in found.links or found.nodes & {a, b}
        assert is_up or covered
        assert not (is_up and (a, b) in found.links and (a, b) not in health.down_links)


@given(meshes())
def test_silent_node_needs_a_witness(mesh):
    """A node that did not answer is down, unless a neighbour reports a link to it as up. An outage stays one."""
    pairs, states, health = mesh
    found = down_now(NODES, pairs, health, states)
    for node in NODES:
        witnesses = [s[node] for n, s in states.items() if node in s]
        if node not in states and not any(state in FAULTLESS for state in witnesses):
            assert node in found.nodes
        if node in states:
            assert (node in found.nodes) == (node in health.down_nodes)
    assert health.down_nodes <= found.nodes


def test_health_decides_without_answers():
    """If no node was asked, a link is down only if it was reported before."""
    health = Health(down_nodes=frozenset({"a"}), down_links=frozenset({("b", "r1")}))
    assert down_now(NODES, {("a", "r1"), ("b", "r1"), ("c", "r1")}, health, None).names == ("a", "b--r1")


def test_healthy_mesh_has_nothing_down():
    """All links are up at both ends."""
    pairs = {(n, "r1") for n in "abc"}
    states = {**{n: {"r1": LinkState.UP} for n in "abc"}, "r1": dict.fromkeys("abc", LinkState.UP)}
    assert down_now(NODES, pairs, Health(), states).names == ()


def test_new_link_is_coming_up():
    """It is waited for, until an end finds it down."""
    assert is_coming_up(("a", "r1"), {"a": {"r1": LinkState.NEW}, "r1": {"a": LinkState.UP}})
    assert not is_coming_up(("a", "r1"), {"a": {"r1": LinkState.NEW}, "r1": {"a": LinkState.DOWN}})
    assert not is_coming_up(("a", "r1"), {})
