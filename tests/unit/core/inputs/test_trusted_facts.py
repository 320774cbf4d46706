"""The facts of a plan: current ones, else last good ones, and never facts that contradict others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saltext_wgmesh.core.errors import PlanError
from saltext_wgmesh.core.inputs import trusted_facts
from saltext_wgmesh.core.inputs.fact_checks import cross_check
from saltext_wgmesh.core.inputs.key_claims import key_owners
from saltext_wgmesh.core.model.facts import Facts, Rejection
from tests.unit.harness.mine_facts import OTHER_SALT_KEY, SALT_KEY, by_node, facts_with_key, gateway_mesh, key


def parsed(*facts: Facts, rejected: tuple[Rejection, ...] = ()) -> trusted_facts.ParsedFacts:
    return trusted_facts.ParsedFacts(facts=by_node(*facts), rejected=rejected)


ACCEPTED = dict.fromkeys(["r1", "gw", "n1", "n2", "n3", "stranger"], SALT_KEY)


def selected(
    found: trusted_facts.ParsedFacts,
    last_good: dict[str, Facts],
    placed: tuple[str, ...] = (),
    elsewhere: dict[str, str | None] | None = None,
    **changes: str,
) -> tuple[dict[str, Facts], list[str]]:
    accepted = {**ACCEPTED, **changes}
    result = trusted_facts.select_facts(
        gateway_mesh(), found, last_good, accepted, placed=placed, owners_elsewhere=elsewhere or {}
    )
    assert list(result.facts) == sorted(result.facts)
    assert list(result.rejected) == sorted(result.rejected)
    return dict(result.facts), [f"{r.node}: {r.reason} … {r.remedy.rpartition('; ')[2]}" for r in result.rejected]


def test_facts_without_contradiction_are_used() -> None:
    """Current facts replace last good ones, a rotated key included."""
    new = by_node(facts_with_key("n1", 5, underlay=("203.0.113.8",)), facts_with_key("r1", 2))
    assert selected(parsed(*new.values()), by_node(facts_with_key("n1", 1))) == (new, [])


def test_unreadable_facts_are_replaced_by_last_good() -> None:
    """The node stays in the mesh, and is reported; a node without last good facts is left out."""
    bad = tuple(Rejection(node=node, reason="broken", remedy="mend it") for node in ("n1", "n2"))
    result = trusted_facts.select_facts(
        gateway_mesh(), parsed(rejected=bad), by_node(facts_with_key("n1", 1)), ACCEPTED
    )
    assert dict(result.facts) == by_node(facts_with_key("n1", 1))
    assert [str(r) for r in result.rejected] == [
        "n1: broken; mend it; until then its last good facts are used",
        "n2: broken; mend it; until then it is left out",
    ]


def test_node_without_current_facts_stays() -> None:
    """A mine that lost entries removes no node from the mesh."""
    assert selected(parsed(facts_with_key("n2", 2)), by_node(facts_with_key("n1", 1), facts_with_key("n2", 2))) == (
        by_node(facts_with_key("n1", 1), facts_with_key("n2", 2)),
        ["n1: it has no facts in the mine … until then its last good facts are used"],
    )


def test_reused_minion_id_inherits_nothing() -> None:
    """Last good facts are used only under the Salt key that is accepted now; without an accepted key they are not."""
    bad = (Rejection(node="n1", reason="broken", remedy="mend it"),)
    assert selected(parsed(rejected=bad), by_node(facts_with_key("n1", 1)), n1=OTHER_SALT_KEY) == (
        {},
        ["n1: broken … until then it is left out"],
    )
    assert trusted_facts.select_facts(
        gateway_mesh(), parsed(), by_node(facts_with_key("n1", 1)), {}
    ) == trusted_facts.TrustedFacts(facts={}, rejected=())


def test_node_keeps_key_that_another_publishes() -> None:
    """The node that published the key first has its current facts used; the other is left out and reported."""
    old, new = facts_with_key("n1", 7, underlay=("203.0.113.7",)), facts_with_key("n1", 7)
    assert selected(parsed(new, facts_with_key("n2", 7)), by_node(old)) == (
        by_node(new),
        ["n2: its public key is also that of n1, which published it first … until then it is left out"],
    )


def test_node_with_copied_key_keeps_its_own() -> None:
    """A member that publishes the key of another stays with the key that it has run with."""
    assert selected(
        parsed(facts_with_key("n1", 7), facts_with_key("n2", 7)),
        by_node(facts_with_key("n1", 7), facts_with_key("n2", 8)),
    ) == (
        by_node(facts_with_key("n1", 7), facts_with_key("n2", 8)),
        ["n2: its public key is also that of n1, which published it first … until then its last good facts are used"],
    )


def test_next_key_of_another_is_dropped() -> None:
    """A node that publishes the key of another as its next key loses that key alone: its new address is used."""
    moved = facts_with_key("n2", 8, underlay=("203.0.113.9",))
    assert selected(
        parsed(facts_with_key("n1", 7), replace(moved, next_key=key(7))),
        by_node(facts_with_key("n1", 7), facts_with_key("n2", 8)),
    ) == (
        by_node(facts_with_key("n1", 7), moved),
        [
            "n2: its next public key is also that of n1, which published it first "
            "… until then the node keeps its present key"
        ],
    )


def test_key_belongs_to_owner_elsewhere() -> None:
    """In a mesh that is new, a key belongs to the node that the records of other meshes name."""
    assert selected(parsed(facts_with_key("n1", 7), facts_with_key("n2", 7)), {}, elsewhere={key(7): "n2"}) == (
        by_node(facts_with_key("n2", 7)),
        ["n1: its public key is also that of n2, which published it first … until then it is left out"],
    )


def test_node_with_view_goes_first() -> None:
    """If the records name several nodes, the key belongs to the one that the published plan has."""
    both = by_node(facts_with_key("n1", 7), facts_with_key("n2", 7))
    assert selected(parsed(*both.values()), both, placed=("n1",)) == (
        by_node(both["n1"]),
        ["n2: its public key is also that of n1, which published it first … until then it is left out"],
    )


def test_key_that_several_records_name_is_lost() -> None:
    """Without a view of either node, neither of the two gets the key, even if one of them alone publishes it."""
    both = by_node(facts_with_key("n1", 7), facts_with_key("n2", 7))
    assert selected(parsed(both["n1"], facts_with_key("n2", 8)), both) == (
        by_node(facts_with_key("n2", 8)),
        ["n1: its public key is also that of another node … until then it is left out"],
    )


def test_new_nodes_with_one_key_are_left_out() -> None:
    """Neither of two new nodes is preferred: both are left out and reported."""
    assert selected(parsed(facts_with_key("n1", 7), facts_with_key("n2", 7), facts_with_key("n3", 3)), {}) == (
        by_node(facts_with_key("n3", 3)),
        [
            "n1: its public key is also that of n2 … until then it is left out",
            "n2: its public key is also that of n1 … until then it is left out",
        ],
    )


def test_key_that_is_rotated_out_is_reserved() -> None:
    """The facts of the rotating node are used; a node that publishes its old key at the same time is rejected."""
    assert selected(parsed(facts_with_key("n1", 9), facts_with_key("n2", 7)), by_node(facts_with_key("n1", 7))) == (
        by_node(facts_with_key("n1", 9)),
        ["n2: its public key is also that of n1, which published it first … until then it is left out"],
    )


def test_both_keys_of_rotating_node_are_reserved() -> None:
    """No other node gets the old key when the new key is published alone, nor the next key before that."""
    rotating = by_node(facts_with_key("n1", 7, next_key=key(8)))
    assert selected(parsed(facts_with_key("n1", 8), facts_with_key("n2", 7)), rotating) == (
        by_node(facts_with_key("n1", 8)),
        ["n2: its public key is also that of n1, which published it first … until then it is left out"],
    )
    assert selected(parsed(facts_with_key("n2", 8)), rotating)[0] == rotating


def test_key_of_node_without_facts_is_reserved() -> None:
    """No other node gets the key of a member whose facts are missing."""
    assert selected(parsed(facts_with_key("n2", 7)), by_node(facts_with_key("n1", 7))) == (
        by_node(facts_with_key("n1", 7)),
        [
            "n1: it has no facts in the mine … until then its last good facts are used",
            "n2: its public key is also that of n1, which published it first … until then it is left out",
        ],
    )


def test_last_good_facts_with_one_key_are_dropped() -> None:
    """Even if the ledger has such a pair, no plan uses it."""
    last_good = by_node(facts_with_key("n1", 7), facts_with_key("n2", 7))
    assert selected(parsed(), last_good) == (
        {},
        [
            "n1: it has no facts in the mine … until then it is left out",
            "n2: it has no facts in the mine … until then it is left out",
        ],
    )


def test_facts_of_non_members_need_not_fit() -> None:
    """Facts of a node that no rule matches are passed on with any networks, and unreadable ones are not reported."""
    stranger = facts_with_key("stranger", 7, networks=("10.100.0.0/16",))
    assert selected(parsed(stranger, facts_with_key("n1", 8)), {}) == (by_node(stranger, facts_with_key("n1", 8)), [])
    bad = (Rejection(node="stranger", reason="broken", remedy="mend it"),)
    old = facts_with_key("stranger", 7)
    assert selected(parsed(facts_with_key("n1", 8), rejected=bad), by_node(old)) == (
        by_node(old, facts_with_key("n1", 8)),
        [],
    )


def test_flapping_node_keeps_last_good_facts() -> None:
    """Unless these contradict the policy: then no plan could be made, and the present ones are used."""
    old, new = facts_with_key("n1", 1), facts_with_key("n1", 1, networks=("172.16.0.0/24",))
    unfit = facts_with_key("n1", 1, networks=("192.168.7.0/24",))
    for last_good, used in ((old, old), (unfit, new)):
        found = trusted_facts.select_facts(gateway_mesh(), parsed(new), by_node(last_good), ACCEPTED, flapping={"n1"})
        assert found.facts == by_node(used)
        assert [r.reason for r in found.rejected] == ["its facts change too often"] * (used is old)


def test_non_member_keeps_key_that_it_published() -> None:
    """No member takes the key of a node that may join later; if both are new, the member goes first."""
    both = parsed(facts_with_key("stranger", 7), facts_with_key("n1", 7))
    assert selected(both, by_node(facts_with_key("stranger", 7))) == (
        by_node(facts_with_key("stranger", 7)),
        ["n1: its public key is also that of stranger, which published it first … until then it is left out"],
    )
    assert selected(both, {}) == (
        by_node(facts_with_key("n1", 7)),
        ["stranger: its public key is also that of n1, which published it first … until then it is left out"],
    )


def test_node_that_enters_subnet_keeps_old_facts() -> None:
    """Current facts that contradict the policy do not remove a node whose last good facts still fit."""
    old = facts_with_key("n1", 1, networks=("172.16.0.0/24",))
    assert selected(parsed(facts_with_key("n1", 1, networks=("192.168.7.0/24",))), by_node(old)) == (
        by_node(old),
        [
            "n1: its own network 192.168.7.0/24 overlaps the subnet 192.168.7.0/24 behind gw "
            "… until then its last good facts are used"
        ],
    )


def test_policy_that_contradicts_running_nodes_is_refused() -> None:
    """If last good facts do not fit either, the policy has changed: no plan is made, so no running node changes."""
    running = by_node(
        facts_with_key("n1", 1, networks=("192.168.7.0/24",)),
        facts_with_key("n2", 2, networks=("10.0.0.0/8",)),
        facts_with_key("r1", 3, ipv6=False),
    )
    with pytest.raises(PlanError) as caught:
        trusted_facts.select_facts(gateway_mesh(), parsed(*running.values()), running, ACCEPTED)
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


def test_new_node_that_contradicts_policy_is_left_out() -> None:
    """The node has never run, so no running node depends on it."""
    assert selected(parsed(facts_with_key("n1", 1, networks=("10.0.0.0/8",)), facts_with_key("n2", 2)), {}) == (
        by_node(facts_with_key("n2", 2)),
        [
            "n1: its own network 10.0.0.0/8 overlaps the mesh's network 10.100.0.0/16 … until then it is left out",
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
    return {
        n: facts_with_key(n, number, networks=nets, salt_key=salt) for n, (number, nets, salt) in sorted(claims.items())
    }


@settings(max_examples=300, deadline=None)
@given(present=CLAIMS, older=CLAIMS)
def test_selected_facts_are_consistent_and_complete(
    present: dict[str, tuple[int, tuple[str, ...], str]], older: dict[str, tuple[int, tuple[str, ...], str]]
) -> None:
    """Selected facts pass the checks; each is current or last good; each node with rejected facts is reported.

    No running node with a key of its own is lost, whatever facts the other nodes publish.
    """
    current, last_good = claimed(present), claimed(older)
    try:
        result = trusted_facts.select_facts(
            gateway_mesh(), parsed(*current.values()), last_good, ACCEPTED, placed=set(last_good) - {"stranger"}
        )
    except PlanError:
        return
    assert cross_check(gateway_mesh(), result.facts) == ()
    for node, own in result.facts.items():
        assert own == current.get(node) or (own == last_good[node] and own.salt_key == ACCEPTED[node])
    reported = {r.node for r in result.rejected}
    members = set(current) - {"stranger"}
    assert {node for node in members if result.facts.get(node) != current[node]} <= reported
    running = {n: f for n, f in last_good.items() if f.salt_key == ACCEPTED[n] and n != "stranger"}
    keys = [f.public_key for f in running.values()]
    assert {n for n, f in running.items() if keys.count(f.public_key) == 1} <= set(result.facts)


KEYS = st.tuples(st.integers(1, 6), st.none() | st.integers(1, 6)).filter(lambda pair: pair[0] != pair[1])


@settings(max_examples=300, deadline=None)
@given(
    honest=st.dictionaries(st.sampled_from(["gw", "n1", "r1"]), st.booleans(), min_size=1),
    claims=st.dictionaries(st.sampled_from(["n2", "n3", "stranger"]), KEYS),
    older=st.dictionaries(st.sampled_from(["n2", "n3"]), st.integers(7, 8)),
    elsewhere=st.booleans(),
)
def test_claims_of_others_cost_nothing(
    honest: dict[str, bool], claims: dict[str, tuple[int, int | None]], older: dict[str, int], elsewhere: bool
) -> None:
    """A node whose keys are recorded has its current facts used, whatever keys other nodes publish.

    *honest* says for each node whether it rotates its key.
    """
    numbers = {"gw": (1, 2), "n1": (3, 4), "r1": (5, 6)}
    recorded = {
        node: facts_with_key(node, numbers[node][0], next_key=key(numbers[node][1]) if rotates else None)
        for node, rotates in honest.items()
    }
    current = {node: replace(facts, underlay=("203.0.113.99",)) for node, facts in recorded.items()}
    others = {
        node: facts_with_key(node, one, next_key=key(two) if two else None) for node, (one, two) in claims.items()
    }
    last_good = {
        node: facts_with_key(node, number) for node, number in older.items() if list(older.values()).count(number) == 1
    }
    owners = key_owners([recorded.values()]) if elsewhere else {}
    result = trusted_facts.select_facts(
        gateway_mesh(),
        parsed(*current.values(), *others.values()),
        last_good if elsewhere else {**last_good, **recorded},
        ACCEPTED,
        owners_elsewhere=owners,
    )
    assert {node: result.facts.get(node) for node in current} == current
    assert not {r.node for r in result.rejected} & set(current)
    assert cross_check(gateway_mesh(), result.facts) == ()
