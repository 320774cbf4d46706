"""Plans for people: the exact text that they read."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from saltext_wgmesh.core import plan, render
from saltext_wgmesh.core.types import Endpoint, Register, Site, Topology
from tests import nodeviews
from tests.unit import worlds
from tests.unit.worlds import all_facts, leaf, mesh, relay

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
PLAN = plan.make(POLICY, FACTS, Register(homes={"c": ("r2", "r1")}))


def explain(a, b, policy=POLICY, made=PLAN):
    return render.explain(made, policy, a, b)


def test_table():
    assert render.table(PLAN) == (
        "node  role   site  addresses                    relays  peers\n"
        "a     leaf   fra   10.100.0.10                  r1, r2  3\n"
        "b     leaf   fra   10.100.0.11                  r1, r2  2\n"
        "c     leaf   -     10.100.0.12, 192.168.7.0/24  r2, r1  3\n"
        "r1    relay  fra   10.100.0.1                   -       4\n"
        "r2    relay  -     10.100.0.2                   -       4\n"
    )


def test_table_ends_with_those_left_out():
    waiting = plan.make(mesh(relay("r1"), leaf("a")), all_facts("a"), Register())
    assert render.table(waiting) == (
        "node  role  site  addresses  relays  peers\n"
        "left out: a: none of its relays has published facts: r1; apply the formula there\n"
    )


def test_dot():
    """A box is a relay, a bold line a trunk, a dashed one an uplink in reserve."""
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


def test_mermaid():
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


def test_names_with_quotes_stay_names_in_pictures():
    """Minion ids are chosen by minions: none may end a string and add to the picture."""
    odd = 'x"];evil'
    made = plan.make(mesh(leaf("*")), all_facts(odd), Register())
    assert '  "x\\"];evil";\n' in render.dot(made)
    assert '    n0("x#quot;];evil")\n' in render.mermaid(made)


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
def test_explain(a, b):
    """The path as packets take it, and the reasons; the text holds both."""
    path, why = PATHS[a, b]
    assert explain(a, b) == {"path": path, "why": why, "text": " ".join([f"{' → '.join(path)}.", *why])}


def test_explain_a_relay_that_is_none_of_the_leafs():
    policy = mesh(relay("r1"), relay("r2"), relay("r3"), leaf("a"))
    made = plan.make(policy, all_facts("r1", "r2", "r3", "a"), Register(homes={"a": ("r1", "r2")}))
    found = explain("a", "r3", policy, made)
    assert found["path"] == ["a", "r1", "r3"]
    assert found["why"][0] == "r3 is none of a's relays, and leaves link with no others."


def test_explain_says_where_relays_come_from():
    links = mesh(relay("r1"), relay("r2"), relay("r3"), leaf("a"), links=(("a", "r3"),))
    made = plan.make(links, all_facts("r1", "r2", "r3", "a"), Register(homes={"a": ("r1", "r2")}))
    assert explain("a", "r1", links, made)["why"][1].endswith("r3 (the policy's links name it).")
    full = mesh(relay("r1"), leaf("a"), topology=Topology.FULL)
    made = plan.make(full, all_facts("r1", "a"), Register())
    assert explain("a", "r1", full, made)["why"][1] == "a's relays, in order: r1 (topology full uses all)."


def test_explain_the_node_itself():
    assert explain("a", "a") == {
        "text": "a is one node: its packets to itself never leave it.",
        "path": ["a"],
        "why": [],
    }


def test_explain_names_no_node_that_is_not_there():
    with pytest.raises(KeyError):
        explain("a", "stranger")


def test_view_diff_of_a_new_node_shows_all_of_it_with_short_keys():
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


def test_view_diff_of_the_same_view_is_empty():
    assert render.view_diff(PLAN.views["r1"], PLAN.views["r1"]) == []


def test_view_diff_names_only_what_changes_in_a_peer():
    """r2 moves to another address, and a subnet appears behind b."""
    nodes = {r.pattern: r for r in POLICY.nodes}
    nodes["r2"] = replace(nodes["r2"], endpoint=Endpoint(host="198.51.100.9", port=4000))
    nodes["b"] = replace(nodes["b"], routes=(ip_network("192.168.8.0/24"),))
    after = plan.make(replace(POLICY, nodes=tuple(nodes.values())), FACTS, PLAN.register)
    assert render.view_diff(PLAN.views["a"], after.views["a"]) == [
        "~ peer r1 on wg0-u1: allowed: 10.100.0.0/16 192.168.7.0/24 → 10.100.0.0/16 192.168.7.0/24 192.168.8.0/24",
        "~ peer r2 on wg0-u2: endpoint: 203.0.113.2:51820 → 198.51.100.9:4000",
        "~ peer r2 on wg0-u2: allowed: 10.100.0.0/16 192.168.7.0/24 → 10.100.0.0/16 192.168.7.0/24 192.168.8.0/24",
        "+ route 192.168.8.0/24: via r1, r2",
    ]


def test_view_diff_says_of_a_preshared_key_no_more_than_whether_it_changes():
    """Not even what stands for it in the view."""

    def view(name):
        return nodeviews.leaf(direct=(nodeviews.peer(7, preshared=name),), relays=())

    assert render.view_diff(view(None), view("0" * 16)) == ["~ peer n7 on wg0: preshared key: none → set"]
    assert render.view_diff(view("0" * 16), view("1" * 16)) == ["~ peer n7 on wg0: preshared key: set → another"]
    assert render.view_diff(view("0" * 16), view(None)) == ["~ peer n7 on wg0: preshared key: set → none"]
    assert any(line.endswith("preshared key set") for line in render.view_diff(None, view("0" * 16)))


def test_view_diff_of_a_relay_says_detours_and_the_way_from_a_trunk():
    facts = {n: f for n, f in FACTS.items() if n != "b"}
    before = plan.make(POLICY, facts, PLAN.register)
    lines = render.view_diff(before.views["r2"], PLAN.views["r2"])
    assert lines[1:] == ["+ route 10.100.0.11/32: via b, r1, else any relay; from a trunk via b"]


def test_view_diff_of_a_node_that_leaves_takes_everything_away():
    lines = render.view_diff(PLAN.views["b"], None)
    assert {line[0] for line in lines} == {"-"}
    assert len(lines) == len(render.view_diff(None, PLAN.views["b"]))


def test_view_diff_counts_prefixes_that_change_alike():
    """A leaf of a large mesh whose relays swap shows three prefixes and a number."""
    policy = mesh(relay("r1"), leaf("g", routes=[f"192.168.{i}.0/24" for i in range(9)]), leaf("a"))
    made = plan.make(policy, all_facts("r1", "g", "a"), Register())
    routes = [line for line in render.view_diff(None, made.views["a"]) if "192.168" in line and "route" in line]
    assert routes[0].startswith("+ route 10.100.0.0/16, ")
    assert routes[0].endswith(" and 8 more: via r1")
