"""facts.crosscheck and facts.believe: what members' facts say against each other, and what a plan is made from."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core import facts, policy
from saltext_wgmesh.core.errors import PlanError
from saltext_wgmesh.core.types import Facts, MeshPolicy, Rejection

SALT_KEY = "5a" * 32
OTHER_SALT_KEY = "77" * 32


def key(number: int) -> str:
    """The public key with that number."""
    return base64.b64encode(number.to_bytes(32, "big")).decode()


def some(node: str, number: int, **changes: Any) -> Facts:
    """The facts of *node* with the public key *number*."""
    return Facts(node=node, public_key=key(number), **{"salt_key": SALT_KEY, **changes})


def report(*found: Facts, rejected: tuple[Rejection, ...] = ()) -> facts.FactsReport:
    return facts.FactsReport(facts={f.node: f for f in found}, rejected=rejected)


def by_node(*found: Facts) -> dict[str, Facts]:
    return {f.node: f for f in found}


def mesh(text: str = "") -> MeshPolicy:
    """A mesh of one relay, a gateway and all ids that begin with n; *text* goes on its end."""
    source = """
    network: [10.100.0.0/16, fd00:64::/64]
    nodes:
      r1: {role: relay, endpoint: 203.0.113.10}
      gw: {routes: [192.168.7.0/24, 192.168.8.0/24]}
      'n*':
    """
    return policy.parse({"wg0": yaml.safe_load(source + text)}).meshes["wg0"]


# --- nodes against each other and the policy -----------------------------------------------------------


def test_facts_without_conflict_pass() -> None:
    """A gateway is in its own subnets; nodes of one network, or with no network at all, are no conflict."""
    good = by_node(
        some("r1", 1, networks=("203.0.113.0/24",)),
        some("gw", 2, networks=("192.168.0.0/21", "192.168.8.0/24"), underlay=("192.168.7.1",)),
        some("n1", 3, networks=("203.0.113.0/24",), ipv6=False),
        some("n2", 4),
    )
    assert facts.crosscheck(mesh(), good) == ()


def test_two_nodes_with_one_key_are_both_named() -> None:
    """Neither is preferred; a node outside the mesh with the same key changes nothing."""
    found = facts.crosscheck(mesh(), by_node(some("n2", 7), some("n1", 7), some("n3", 8), some("stranger", 8)))
    do = "find out which of them is the copy, delete /etc/wireguard/wgmesh.key there and apply the state again"
    assert found == (
        Rejection(node="n1", reason="its public key is also that of n2", do=do),
        Rejection(node="n2", reason="its public key is also that of n1", do=do),
    )


def test_many_nodes_with_one_key_are_named_in_short() -> None:
    """Each is rejected; a message lists three others and counts the rest, if there is a rest."""
    found = facts.crosscheck(mesh(), {f"n{i}": some(f"n{i}", 7) for i in range(4)})
    assert found[0].reason == "its public key is also that of n1, n2, n3"
    found = facts.crosscheck(mesh(), {f"n{i}": some(f"n{i}", 7) for i in range(6)})
    assert [r.reason for r in found] == [
        "its public key is also that of n1, n2, n3 and 2 more",
        "its public key is also that of n0, n2, n3 and 2 more",
        "its public key is also that of n0, n1, n3 and 2 more",
        "its public key is also that of n0, n1, n2 and 2 more",
        "its public key is also that of n0, n1, n2 and 2 more",
        "its public key is also that of n0, n1, n2 and 2 more",
    ]


@pytest.mark.parametrize(
    ("own", "reason", "do"),
    [
        (
            {"networks": ("192.168.7.0/25",)},
            "its own network 192.168.7.0/25 overlaps the subnet 192.168.7.0/24 behind gw",
            "list the subnet in the routes of this node too, or take it out of wgmesh:wg0:nodes:gw:routes",
        ),
        (
            {"networks": ("172.16.0.0/12", "192.168.0.0/16")},
            "its own network 192.168.0.0/16 overlaps the subnet 192.168.7.0/24 behind gw, and 1 more such",
            "list the subnet in the routes of this node too, or take it out of wgmesh:wg0:nodes:gw:routes",
        ),
        (
            {"networks": ("10.0.0.0/8",)},
            "its own network 10.0.0.0/8 overlaps the mesh's network 10.100.0.0/16",
            "change wgmesh:wg0:network, or the network that the node is in",
        ),
        (
            {"networks": ("fd00:64::/65",)},
            "its own network fd00:64::/65 overlaps the mesh's network fd00:64::/64",
            "change wgmesh:wg0:network, or the network that the node is in",
        ),
        (
            {"underlay": ("10.100.200.1",)},
            "its own network 10.100.200.1/32 overlaps the mesh's network 10.100.0.0/16",
            "change wgmesh:wg0:network, or the network that the node is in",
        ),
    ],
)
def test_a_node_in_a_network_that_the_mesh_uses_is_rejected(own: dict[str, Any], reason: str, do: str) -> None:
    """It alone: the gateway of the subnet and all others stay."""
    found = facts.crosscheck(mesh(), by_node(some("n1", 1, **own), some("gw", 2, networks=("192.168.7.0/24",))))
    assert found == (Rejection(node="n1", reason=reason, do=do),)


def test_a_gateway_of_one_subnet_is_not_excused_for_another() -> None:
    """Only the subnets in its own routes may be its own networks."""
    found = facts.crosscheck(
        mesh("  g2: {routes: [192.168.9.0/24]}\n"), by_node(some("g2", 1, networks=("192.168.8.0/23",)))
    )
    assert [r.reason for r in found] == [
        "its own network 192.168.8.0/23 overlaps the subnet 192.168.8.0/24 behind gw",
    ]


def test_a_relay_without_ipv6_is_rejected_where_the_mesh_has_ipv6() -> None:
    """It could not forward for others; in a mesh of IPv4 alone it can."""
    relay = by_node(some("r1", 1, ipv6=False))
    assert facts.crosscheck(mesh(), relay) == (
        Rejection(
            node="r1",
            reason="IPv6 is disabled on it, and it is a relay of a mesh with an IPv6 network",
            do="enable IPv6 there, or take the IPv6 network out of wgmesh:wg0:network",
        ),
    )
    raw = {"network": "10.100.0.0/16", "nodes": {"r1": {"role": "relay", "endpoint": "203.0.113.10"}}}
    assert facts.crosscheck(policy.parse({"wg0": raw}).meshes["wg0"], relay) == ()


# --- what is believed ----------------------------------------------------------------------------------

ACCEPTED = dict.fromkeys(["r1", "gw", "n1", "n2", "n3", "stranger"], SALT_KEY)


def believed(
    found: facts.FactsReport, last_good: dict[str, Facts], **changes: str
) -> tuple[dict[str, Facts], list[str]]:
    result = facts.believe(mesh(), found, last_good, {**ACCEPTED, **changes})
    assert list(result.facts) == sorted(result.facts)
    assert list(result.rejected) == sorted(result.rejected)
    return dict(result.facts), [f"{r.node}: {r.reason} … {r.do.rpartition('; ')[2]}" for r in result.rejected]


def test_present_facts_without_conflict_are_believed() -> None:
    """They replace older ones, a rotated key included."""
    new = by_node(some("n1", 5, underlay=("203.0.113.8",)), some("r1", 2))
    assert believed(report(*new.values()), by_node(some("n1", 1))) == (new, [])


def test_unreadable_facts_are_replaced_by_the_last_good_ones() -> None:
    """The node stays as it was, and is named; one without older facts is left out."""
    bad = tuple(Rejection(node=node, reason="broken", do="mend it") for node in ("n1", "n2"))
    result = facts.believe(mesh(), report(rejected=bad), by_node(some("n1", 1)), ACCEPTED)
    assert dict(result.facts) == by_node(some("n1", 1))
    assert [str(r) for r in result.rejected] == [
        "n1: broken; mend it; its last good facts are used meanwhile",
        "n2: broken; mend it; it is left out meanwhile",
    ]


def test_a_node_that_fell_silent_stays() -> None:
    """A mine that lost entries takes nobody out of the mesh."""
    assert believed(report(some("n2", 2)), by_node(some("n1", 1), some("n2", 2))) == (
        by_node(some("n1", 1), some("n2", 2)),
        ["n1: it has no facts in the mine … its last good facts are used meanwhile"],
    )


def test_a_reused_id_inherits_nothing() -> None:
    """Older facts count only under the Salt key that is accepted now; so they do after the key was deleted."""
    bad = (Rejection(node="n1", reason="broken", do="mend it"),)
    assert believed(report(rejected=bad), by_node(some("n1", 1)), n1=OTHER_SALT_KEY) == (
        {},
        ["n1: broken … it is left out meanwhile"],
    )
    assert facts.believe(mesh(), report(), by_node(some("n1", 1)), {}) == facts.Believed(facts={}, rejected=())


def test_a_node_that_ran_with_a_key_keeps_it() -> None:
    """Who publishes the same key later is left out, and both are named."""
    old = some("n1", 7, underlay=("203.0.113.7",))
    assert believed(report(some("n1", 7), some("n2", 7)), by_node(old)) == (
        by_node(old),
        [
            "n1: its public key is also that of n2 … its last good facts are used meanwhile",
            "n2: its public key is also that of n1 … it is left out meanwhile",
        ],
    )


def test_a_newcomer_that_took_a_running_nodes_key_falls_back_to_its_own() -> None:
    """A member that publishes another's key stays with the key that it ran with."""
    assert believed(report(some("n1", 7), some("n2", 7)), by_node(some("n1", 7), some("n2", 8))) == (
        by_node(some("n1", 7), some("n2", 8)),
        [
            "n1: its public key is also that of n2 … its last good facts are used meanwhile",
            "n2: its public key is also that of n1 … its last good facts are used meanwhile",
        ],
    )


def test_of_two_newcomers_with_one_key_neither_is_preferred() -> None:
    """Both are left out and named."""
    assert believed(report(some("n1", 7), some("n2", 7), some("n3", 3)), {}) == (
        by_node(some("n3", 3)),
        [
            "n1: its public key is also that of n2 … it is left out meanwhile",
            "n2: its public key is also that of n1 … it is left out meanwhile",
        ],
    )


def test_a_key_that_is_just_rotated_away_is_not_free_yet() -> None:
    """The one who rotates is believed; whoever publishes its old key at the same time is not."""
    assert believed(report(some("n1", 9), some("n2", 7)), by_node(some("n1", 7))) == (
        by_node(some("n1", 9)),
        ["n2: its public key is also that of n1 … it is left out meanwhile"],
    )


def test_a_next_key_is_as_much_a_nodes_own_as_its_present_one() -> None:
    """Whoever publishes it as any key of its own is named; so is who announces another's present key."""
    rotating = some("n1", 7, next_key=key(8))
    for copy in (some("n2", 8), some("n2", 9, next_key=key(8))):
        assert [r.node for r in facts.crosscheck(mesh(), by_node(rotating, copy))] == ["n1", "n2"]
    first, second = facts.crosscheck(mesh(), by_node(some("n1", 7), some("n2", 9, next_key=key(7))))
    assert first.reason == "its public key is also that of n2"
    assert second.reason == "its next public key is also that of n1"


def test_who_turns_to_its_next_key_is_believed_and_nobody_else_gets_either() -> None:
    """The old key is not free in the run in which the new one is published alone, nor the next before that."""
    rotating = by_node(some("n1", 7, next_key=key(8)))
    assert believed(report(some("n1", 8), some("n2", 7)), rotating) == (
        by_node(some("n1", 8)),
        ["n2: its public key is also that of n1 … it is left out meanwhile"],
    )
    assert believed(report(some("n2", 8)), rotating)[0] == rotating


def test_a_silent_nodes_key_is_not_free() -> None:
    """Nobody takes the key of a member whose facts are missing."""
    assert believed(report(some("n2", 7)), by_node(some("n1", 7))) == (
        by_node(some("n1", 7)),
        [
            "n1: it has no facts in the mine … its last good facts are used meanwhile",
            "n2: its public key is also that of n1 … it is left out meanwhile",
        ],
    )


def test_older_facts_that_share_a_key_are_both_dropped() -> None:
    """Even if the ledger holds such a pair, no plan gets it."""
    silent = by_node(some("n1", 7), some("n2", 7))
    assert believed(report(), silent) == (
        {},
        [
            "n1: it has no facts in the mine … it is left out meanwhile",
            "n2: it has no facts in the mine … it is left out meanwhile",
        ],
    )


def test_strangers_harm_nobody() -> None:
    """Facts of a node that no rule matches are passed on as they are, and hold no key and no network."""
    stranger = some("stranger", 7, networks=("10.100.0.0/16",))
    old = some("stranger", 7)
    assert believed(report(stranger, some("n1", 7)), by_node(old)) == (by_node(stranger, some("n1", 7)), [])
    bad = (Rejection(node="stranger", reason="broken", do="mend it"),)
    assert believed(report(some("n1", 7), rejected=bad), by_node(old)) == (by_node(old, some("n1", 7)), [])


def test_a_node_that_moves_into_a_subnet_keeps_its_last_good_facts() -> None:
    """What a node says of itself now can't take it out, if what it said before still fits."""
    old = some("n1", 1, networks=("172.16.0.0/24",))
    assert believed(report(some("n1", 1, networks=("192.168.7.0/24",))), by_node(old)) == (
        by_node(old),
        [
            "n1: its own network 192.168.7.0/24 overlaps the subnet 192.168.7.0/24 behind gw "
            "… its last good facts are used meanwhile"
        ],
    )


def test_a_policy_that_contradicts_running_nodes_is_refused() -> None:
    """If older facts don't fit either, the policy changed: no plan, so that nothing that runs is changed."""
    running = by_node(
        some("n1", 1, networks=("192.168.7.0/24",)),
        some("n2", 2, networks=("10.0.0.0/8",)),
        some("r1", 3, ipv6=False),
    )
    with pytest.raises(PlanError) as caught:
        facts.believe(mesh(), report(*running.values()), running, ACCEPTED)
    assert str(caught.value) == "\n".join(
        [
            "no plan can be made (3), nothing was changed:",
            "  - node n1: by its last good facts, its own network 192.168.7.0/24 overlaps the subnet 192.168.7.0/24 "
            "behind gw; list the subnet in the routes of this node too, or take it out of wgmesh:wg0:nodes:gw:routes",
            "  - node n2: by its last good facts, its own network 10.0.0.0/8 overlaps the mesh's network "
            "10.100.0.0/16; change wgmesh:wg0:network, or the network that the node is in",
            "  - node r1: by its last good facts, IPv6 is disabled on it, and it is a relay of a mesh with an IPv6 "
            "network; enable IPv6 there, or take the IPv6 network out of wgmesh:wg0:network",
        ]
    )


def test_a_newcomer_that_contradicts_the_policy_is_left_out_alone() -> None:
    """It never ran, so nothing that runs depends on it."""
    assert believed(report(some("n1", 1, networks=("10.0.0.0/8",)), some("n2", 2)), {}) == (
        by_node(some("n2", 2)),
        [
            "n1: its own network 10.0.0.0/8 overlaps the mesh's network 10.100.0.0/16 … it is left out meanwhile",
        ],
    )


NODES = ["gw", "n1", "n2", "n3", "r1", "stranger"]
CLAIMS = st.dictionaries(
    st.sampled_from(NODES),
    st.tuples(
        st.integers(1, 4),
        st.sampled_from([(), ("192.168.7.0/24",), ("10.0.0.0/8",), ("172.16.0.0/24",)]),
        st.sampled_from([SALT_KEY, OTHER_SALT_KEY]),
    ),
)


def claimed(claims: dict[str, tuple[int, tuple[str, ...], str]]) -> dict[str, Facts]:
    return {n: some(n, number, networks=nets, salt_key=salt) for n, (number, nets, salt) in sorted(claims.items())}


@settings(max_examples=300, deadline=None)
@given(present=CLAIMS, older=CLAIMS)
def test_what_is_believed_has_no_conflict_and_loses_nobody(
    present: dict[str, tuple[int, tuple[str, ...], str]], older: dict[str, tuple[int, tuple[str, ...], str]]
) -> None:
    """Believed facts pass the crosscheck; each is a node's present or older word; whoever is doubted is named."""
    now, kept = claimed(present), claimed(older)
    try:
        result = facts.believe(mesh(), report(*now.values()), kept, ACCEPTED)
    except PlanError:
        return
    assert facts.crosscheck(mesh(), result.facts) == ()
    for node, own in result.facts.items():
        assert own == now.get(node) or (own == kept[node] and own.salt_key == ACCEPTED[node])
    named = {r.node for r in result.rejected}
    members = set(now) - {"stranger"}
    assert {node for node in members if result.facts.get(node) != now[node]} <= named
    # A running node with a key of its own is never lost, whatever the others claim.
    running = {n: f for n, f in kept.items() if f.salt_key == ACCEPTED[n] and n != "stranger"}
    keys = [f.public_key for f in running.values()]
    assert {n for n, f in running.items() if keys.count(f.public_key) == 1} <= set(result.facts)
