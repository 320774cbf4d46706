"""The texts that an operator reads, to the letter."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from itertools import permutations

import pytest

from saltext_wgmesh.core import render
from saltext_wgmesh.core.model.plan import Allocations
from saltext_wgmesh.core.model.policy import Endpoint, Site, Topology
from saltext_wgmesh.core.planning import planner
from saltext_wgmesh.core.proof import packet_walk
from tests import nodeviews
from tests.unit.harness import worlds
from tests.unit.harness.worlds import all_facts, leaf, mesh, relay

POLICY = mesh(
    relay("r1", "203.0.113.1", "fra", addresses=["10.100.0.1"]),
    relay("r2", "203.0.113.2", addresses=["10.100.0.2"]),
    leaf("a", "fra", addresses=["10.100.0.10"], nat=True),
    leaf("b", "fra", addresses=["10.100.0.11"], nat=True),
    leaf("c", addresses=["10.100.0.12"], routes=["192.168.7.0/24"]),
    sites=(Site(name="fra", relays=("r1",)),),
    links=(("a", "c"),),
)
FACTS = all_facts("r1", "r2", "a", "b") | {"c": worlds.facts("c", "172.16.0.9")}
PLAN = planner.plan_mesh(POLICY, FACTS, Allocations(relays={"c": ("r2", "r1")}))


def explain(a, b, policy=POLICY, plan=PLAN):
    return render.explain_path(plan, policy, a, b).as_dict()


def test_explain_shows_other_path_of_ipv6():
    """The path of IPv6 packets is shown beside that of IPv4 ones for each pair whose paths differ, and for no other."""
    relays = [relay(f"r{i}", f"203.0.113.{i}") for i in (1, 2)]
    policy = mesh(*relays, leaf("*", nat=True), network="10.100.0.0/16 fd00:64::/64")
    leaves = [f"n{i}" for i in range(8)]
    plan = planner.plan_mesh(policy, all_facts("r1", "r2", *leaves), Allocations())
    by_family = {family: packet_walk.all_paths(plan, family) for family in (4, 6)}
    differing = set()
    for a, b in permutations(leaves, 2):
        found, ipv4, ipv6 = explain(a, b, policy, plan), *(list(by_family[family][a][b]) for family in (4, 6))
        assert (found["path"], found.get("path_ipv6", ipv4)) == (ipv4, ipv6)
        differing.add("path_ipv6" in found)
    assert differing == {True, False}


def test_table_has_one_line_a_node():
    """Each node has a line with its role, site, addresses, relays and number of peers."""
    assert render.render_table(PLAN) == (
        "node  role   site  addresses                    relays  peers\n"
        "a     leaf   fra   10.100.0.10                  r1, r2  3\n"
        "b     leaf   fra   10.100.0.11                  r1, r2  2\n"
        "c     leaf   -     10.100.0.12, 192.168.7.0/24  r2, r1  3\n"
        "r1    relay  fra   10.100.0.1                   -       4\n"
        "r2    relay  -     10.100.0.2                   -       4\n"
    )


def test_table_ends_with_unplaced_nodes():
    """An unplaced node has a line with the reason."""
    waiting = planner.plan_mesh(mesh(relay("r1"), leaf("a")), all_facts("a"), Allocations())
    assert render.render_table(waiting) == (
        "node  role  site  addresses  relays  peers\n"
        "unplaced: a: none of its relays has published facts: r1; apply the formula there\n"
    )


def test_dot_marks_relays_and_links():
    """A box is a relay, a bold line a trunk, a dashed one a standby uplink."""
    assert render.dot(PLAN) == (
        'graph "wg0" {\n'
        "  layout=fdp; node [shape=ellipse];\n"
        '  subgraph cluster_0 { label="fra";\n'
        '    "a";\n'
        '    "b";\n'
        '    "r1" [shape=box];\n'
        "  }\n"
        '  "c";\n'
        '  "r2" [shape=box];\n'
        '  "a" -- "c";\n'
        '  "a" -- "r1";\n'
        '  "a" -- "r2" [style=dashed];\n'
        '  "b" -- "r1";\n'
        '  "b" -- "r2" [style=dashed];\n'
        '  "c" -- "r1" [style=dashed];\n'
        '  "c" -- "r2";\n'
        '  "r1" -- "r2" [style=bold];\n'
        "}\n"
    )


def test_mermaid_has_the_signs_of_dot():
    """Relays, trunks and standby uplinks have their own signs, as in ``dot``."""
    assert render.mermaid(PLAN) == (
        "flowchart LR\n"
        '  subgraph s0["fra"]\n'
        '    n0("a")\n'
        '    n1("b")\n'
        '    n3[["r1"]]\n'
        "  end\n"
        '    n2("c")\n'
        '    n4[["r2"]]\n'
        "  n0 --- n2\n"
        "  n0 --- n3\n"
        "  n0 -.- n4\n"
        "  n1 --- n3\n"
        "  n1 -.- n4\n"
        "  n2 -.- n3\n"
        "  n2 --- n4\n"
        "  n3 === n4\n"
    )


def test_graph_names_with_quotes_are_escaped():
    """Minions choose their ids: none may end a string and add to the graph."""
    odd = 'x"];evil'
    plan = planner.plan_mesh(mesh(leaf("*")), all_facts(odd), Allocations())
    assert '  "x\\"];evil";\n' in render.dot(plan)
    assert '    n0("x#quot;];evil")\n' in render.mermaid(plan)


A_HAS = "a's relays, in order: r1 (of site fra), r2 (chosen among all relays, evenly)."
B_HAS = "b's relays, in order: r1 (of site fra), r2 (chosen among all relays, evenly)."
C_HAS = "c's relays, in order: r2 (chosen among all relays, evenly), r1 (chosen among all relays, evenly)."

PATHS = {
    ("a", "c"): (["a", "c"], ["They are linked directly: the policy's links name this pair."]),
    ("a", "b"): (
        ["a", "r1", "b"],
        [
            "They are not linked directly: both are at site fra, but neither side can open: "
            "a is behind NAT and has no endpoint, b is behind NAT and has no endpoint.",
            A_HAS,
            B_HAS,
        ],
    ),
    ("c", "b"): (
        ["c", "r2", "b"],
        [
            "They are not linked directly: topology partial links across sites only nodes that both have an endpoint: "
            "b and c have none.",
            C_HAS,
            B_HAS,
        ],
    ),
    ("r2", "a"): (["r2", "a"], ["r2 is one of a's relays.", A_HAS]),
    ("r1", "r2"): (["r1", "r2"], ["All relays are linked with each other, by trunks."]),
}


@pytest.mark.parametrize(("a", "b"), PATHS)
def test_explain_path_gives_path_and_reasons(a, b):
    """The result has the path of packets and the reasons, each once."""
    path, why = PATHS[a, b]
    assert explain(a, b) == {"path": path, "why": why}


def test_explain_path_foreign_relay_says_so():
    """A relay that is not one of the leaf's is reached by one that is."""
    policy = mesh(relay("r1"), relay("r2"), relay("r3"), leaf("a"))
    plan = planner.plan_mesh(policy, all_facts("r1", "r2", "r3", "a"), Allocations(relays={"a": ("r1", "r2")}))
    found = explain("a", "r3", policy, plan)
    assert found["path"] == ["a", "r1", "r3"]
    assert found["why"][0] == "r3 is none of a's relays, and leaves link with no others."


def test_explain_path_gives_reason_of_relays():
    """A relay comes from the policy's links, or from the topology."""
    links = mesh(relay("r1"), relay("r2"), relay("r3"), leaf("a"), links=(("a", "r3"),))
    plan = planner.plan_mesh(links, all_facts("r1", "r2", "r3", "a"), Allocations(relays={"a": ("r1", "r2")}))
    assert explain("a", "r1", links, plan)["why"][1].endswith("r3 (the policy's links name it).")
    full = mesh(relay("r1"), leaf("a"), topology=Topology.FULL)
    plan = planner.plan_mesh(full, all_facts("r1", "a"), Allocations())
    assert explain("a", "r1", full, plan)["why"][1] == "a's relays, in order: r1 (topology full uses all)."


def test_explain_path_to_itself_is_one_node():
    """Packets of a node to itself never leave it."""
    assert explain("a", "a") == {
        "path": ["a"],
        "why": ["a is one node: its packets to itself never leave it."],
    }


def test_explain_path_unknown_node_raises_key_error():
    """A node that is not a member has no path."""
    with pytest.raises(KeyError):
        explain("a", "stranger")


def test_view_diff_new_node_shows_whole_view():
    """Each part of the view has a line; keys are shortened."""
    key = {n: worlds.facts(n).public_key[:8] for n in FACTS}
    assert render.view_diff(None, PLAN.views["a"]) == [
        "+ role: leaf",
        "+ addresses: 10.100.0.10",
        "+ networks: 10.100.0.0/16",
        "+ forwarding: off",
        "+ mtu: 1420",
        "+ interface wg0: access, port 51820",
        "+ interface wg0-u1: uplink, port any",
        "+ interface wg0-u2: uplink, port any",
        f"+ peer c on wg0: key {key['c']}, endpoint 172.16.0.9:51820, keepalive 25, "
        "allowed 10.100.0.12/32 192.168.7.0/24",
        f"+ peer r1 on wg0-u1: key {key['r1']}, endpoint 203.0.113.1:51820, keepalive 25, "
        "allowed 10.100.0.0/16 192.168.7.0/24",
        f"+ peer r2 on wg0-u2: key {key['r2']}, endpoint 203.0.113.2:51820, keepalive 25, "
        "allowed 10.100.0.0/16 192.168.7.0/24",
        "+ route 10.100.0.0/16, 10.100.0.1/32: via r1, r2",
        "+ route 10.100.0.2/32: via r2, r1",
        "+ route 10.100.0.12/32, 192.168.7.0/24: via c, r1, r2",
    ]


def test_view_diff_same_view_is_empty():
    """Equal views have no differences."""
    assert render.view_diff(PLAN.views["r1"], PLAN.views["r1"]) == []


def test_view_diff_peer_shows_changed_values():
    """r2 moves to another address, and a subnet appears behind b."""
    nodes = {r.pattern: r for r in POLICY.nodes}
    nodes["r2"] = replace(nodes["r2"], endpoint=Endpoint(host="198.51.100.9", port=4000))
    nodes["b"] = replace(nodes["b"], routes=(ip_network("192.168.8.0/24"),))
    after = planner.plan_mesh(replace(POLICY, nodes=tuple(nodes.values())), FACTS, PLAN.allocations)
    assert render.view_diff(PLAN.views["a"], after.views["a"]) == [
        "~ peer r1 on wg0-u1: allowed: 10.100.0.0/16 192.168.7.0/24 → 10.100.0.0/16 192.168.7.0/24 192.168.8.0/24",
        "~ peer r2 on wg0-u2: endpoint: 203.0.113.2:51820 → 198.51.100.9:4000",
        "~ peer r2 on wg0-u2: allowed: 10.100.0.0/16 192.168.7.0/24 → 10.100.0.0/16 192.168.7.0/24 192.168.8.0/24",
        "+ route 192.168.8.0/24: via r1, r2",
    ]


def test_view_diff_hides_psk_identifier():
    """The text says of a preshared key only whether it changes, without its identifier."""

    def view(name):
        return nodeviews.leaf(direct=(nodeviews.peer(7, preshared=name),), relays=())

    assert render.view_diff(view(None), view("0" * 16)) == ["~ peer n7 on wg0: preshared key: none → set"]
    assert render.view_diff(view("0" * 16), view("1" * 16)) == ["~ peer n7 on wg0: preshared key: set → another"]
    assert render.view_diff(view("0" * 16), view(None)) == ["~ peer n7 on wg0: preshared key: set → none"]
    assert any(line.endswith("preshared key set") for line in render.view_diff(None, view("0" * 16)))


def test_view_diff_relay_shows_detour_and_trunk():
    """A route of a relay has its detours and its next hops for packets from a trunk."""
    facts = {n: f for n, f in FACTS.items() if n != "b"}
    before = planner.plan_mesh(POLICY, facts, PLAN.allocations)
    lines = render.view_diff(before.views["r2"], PLAN.views["r2"])
    assert lines[1:] == ["+ route 10.100.0.11/32: via b, r1, else any relay; from a trunk via b"]


def test_view_diff_leaving_node_removes_whole_view():
    """Each part of the old view has a line."""
    lines = render.view_diff(PLAN.views["b"], None)
    assert {line[0] for line in lines} == {"-"}
    assert len(lines) == len(render.view_diff(None, PLAN.views["b"]))


def test_view_diff_counts_equal_route_changes():
    """Three of many prefixes with the same change are listed, and the others counted."""
    policy = mesh(relay("r1"), leaf("g", routes=[f"192.168.{i}.0/24" for i in range(9)]), leaf("a"))
    plan = planner.plan_mesh(policy, all_facts("r1", "g", "a"), Allocations())
    routes = [line for line in render.view_diff(None, plan.views["a"]) if "192.168" in line and "route" in line]
    assert routes[0].startswith("+ route 10.100.0.0/16, ")
    assert routes[0].endswith(" and 8 more: via r1")
