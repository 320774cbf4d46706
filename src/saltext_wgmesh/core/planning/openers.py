"""Nodes that can open a connection to an endpoint by their address families, and those that can open none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from saltext_wgmesh.core.inputs.endpoints import literal_of
from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.model.facts import Facts
from saltext_wgmesh.core.model.plan import Allocations
from saltext_wgmesh.core.model.policy import Endpoint, NodeRule, Role


def can_open(families: frozenset[int], endpoint: Endpoint | None) -> bool:
    """Return whether a node with these *families* may reach *endpoint*. No families: the node reports none.

    A name may resolve to any family.
    """
    literal = literal_of(endpoint) if endpoint else None
    return endpoint is not None and (literal is None or not families or address_family(literal) in families)


def unopenable_relays(rules: Mapping[str, NodeRule], facts: Mapping[str, Facts]) -> dict[str, frozenset[str]]:
    """Return leaf → the relays to which it can't open a connection, for the leaves that have any."""
    relays = {node: rule.endpoint for node, rule in rules.items() if rule.role is Role.RELAY}
    # Most meshes have one such set a family, so it is made once for each.
    by_families: dict[frozenset[int], frozenset[str]] = {}
    found = {}
    for node, rule in rules.items():
        if rule.role is Role.LEAF:
            families = facts[node].families
            if families not in by_families:
                by_families[families] = frozenset(r for r, where in relays.items() if not can_open(families, where))
            if by_families[families]:
                found[node] = by_families[families]
    return found


def without_way(
    rules: Mapping[str, NodeRule], relays: Sequence[str], facts: Mapping[str, Facts], allocations: Allocations
) -> dict[str, str]:
    """Return new node → why it has no way into the mesh: a leaf to its relays, or a relay to another one.

    *relays* are those of *rules*, in the operator's order. A node that was in an earlier plan is never one of these: it
    may just have lost its addresses for a moment.
    """
    reasons = {}
    placed = [relay for relay in relays if relay in allocations.relay_numbers]
    for relay in relays:
        if relay not in allocations.relay_numbers:
            cut_off = next((r for r in placed if not _trunk_opens(relay, r, rules, facts)), None)
            if cut_off:
                reasons[relay] = (
                    f"neither it nor the relay {cut_off} can open a trunk: {_remedy(facts[relay].families)}"
                )
            else:
                placed.append(relay)
    for leaf, unopenable in unopenable_relays(rules, facts).items():
        if leaf not in allocations.relays and unopenable.issuperset(placed):
            reasons[leaf] = f"it can open a link to no relay: {_remedy(facts[leaf].families)}"
    return reasons


def _trunk_opens(a: str, b: str, rules: Mapping[str, NodeRule], facts: Mapping[str, Facts]) -> bool:
    return any(can_open(facts[opener].families, rules[other].endpoint) for opener, other in ((a, b), (b, a)))


def _remedy(families: frozenset[int]) -> str:
    has = " and ".join(f"IPv{family}" for family in sorted(families))
    return f"its underlay has {has} alone; write the endpoint as a name with addresses of both families"
