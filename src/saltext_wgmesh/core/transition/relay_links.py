"""The links of leaves to their previous relays, and between leaves, that the next step must keep.

A leaf that gets other relays takes three steps, each a generation:

1. The leaf has its new relays and, behind them, its previous relays. Every relay of either list delivers to the leaf
   itself, and a packet's position in the list only grows. So nodes of this step and nodes of the old plan may be mixed
   in any way.
2. Once the new links carry, the previous links are *unrouted*: they exist, and no route uses them.
3. Once both ends have applied that, the links are removed.

A direct link takes two steps: both ends keep it and prefer a relay, then it is removed.
"""

from __future__ import annotations

from collections.abc import Container, Sequence, Set
from dataclasses import dataclass

from saltext_wgmesh.core.model.pairs import NodePair, node_pair
from saltext_wgmesh.core.model.plan import Member, Plan
from saltext_wgmesh.core.model.view import Kind
from saltext_wgmesh.core.transition.published_step import PublishedStep
from saltext_wgmesh.core.transition.state import RelaysByLeaf, relays_in_order


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """The step from the published plan to *after*."""

    published: PublishedStep
    after: Plan
    dead: Set[NodePair]
    """Links that carry nothing."""

    def is_usable(self, leaf: str, relay: str, unusable: Set[NodePair]) -> bool:
        """Return whether *relay* is a relay of *after* that is up, and whose link to *leaf* is not *unusable*."""
        member = self.after.members.get(relay)
        is_up = relay not in self.published.health.down_nodes and node_pair(leaf, relay) not in unusable
        return bool(member and member.is_relay and is_up)


def relay_links_to_keep(
    published: PublishedStep, after: Plan, changing_role: Container[str] = ()
) -> tuple[RelaysByLeaf, RelaysByLeaf]:
    """Return the previous relays and the unrouted relays of each leaf, for the step to *after*.

    Leaves without such relays have no entry; nor have nodes that are *changing_role*, since ``role_change`` decides on
    their links.
    """
    change = _Change(published=published, after=after, dead=published.dead_links())
    routed: dict[str, tuple[str, ...]] = {}
    unrouted: dict[str, tuple[str, ...]] = {}
    for leaf, member in after.members.items():
        old = published.plan.members.get(leaf)
        if old is None or member.is_relay or old.is_relay or leaf in changing_role:
            continue
        routed[leaf], unrouted[leaf] = _relays_to_keep(old, member, change)
    return _without_empty(routed), _without_empty(unrouted)


def _relays_to_keep(old: Member, new: Member, change: _Change) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the relays that a leaf keeps with routes and without routes, if it was *old* and is to be *new*."""
    leaf, evidence = new.node, change.published.evidence
    had_unrouted = change.published.transition.unrouted_relays.get(leaf, ())
    left = [r for r in (*old.relays, *had_unrouted) if r not in new.relays and change.is_usable(leaf, r, change.dead)]
    without_route = {r for r in had_unrouted if r not in old.relays}
    # Here a link in hold-down counts as down: a leaf must not give up its old relays for a link that flaps.
    usable_new = [r for r in new.relays if change.is_usable(leaf, r, change.published.health.down_links)]
    new_links_carry = (
        set(usable_new) <= set(old.relays)
        and any(usable_new)
        and all(evidence.carries_both_ways(leaf, r) for r in usable_new)
    )
    routed = tuple(r for r in left if r not in without_route and not new_links_carry)
    # Once both ends have applied that no route uses a link, neither sends through it, and it can be removed.
    removed = {r for r in without_route if evidence.has_applied(leaf) and evidence.has_applied(r)}
    unrouted = tuple(r for r in left if r not in routed and r not in removed)

    # Nodes may be in the middle of the step before. A relay that does not deliver yet must not find a way back to
    # itself in the list of any node. Until it delivers, the leaf keeps its old list, with its new relays behind.
    looping = [r for r in may_loop_back(old.relays, relays_in_order(new.relays, routed)) if r in usable_new]
    was_in_transition = leaf in change.published.transition.previous_relays
    all_deliver = all(evidence.can_deliver(leaf, r, was_in_transition) for r in looping)
    if leaf not in change.published.health.down_nodes and not all_deliver:
        usable_old = [r for r in old.relays if change.is_usable(leaf, r, change.dead)]
        routed = (*usable_old, *(r for r in new.relays if r in old.relays and r not in usable_old))
    return routed, unrouted


def _without_empty(relays: RelaysByLeaf) -> dict[str, tuple[str, ...]]:
    return {leaf: names for leaf, names in relays.items() if names}


def may_loop_back(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """Return the relays of both lists that could get back a packet which they send on.

    Such a relay sends, by *after*, to a later relay that, by *before*, would send to the first one again.
    """
    position = {relay: i for i, relay in enumerate(before)}
    return [
        relay
        for i, relay in enumerate(after)
        if relay in position and any(position.get(later, -1) < position[relay] for later in after[i + 1 :])
    ]


def direct_links_to_keep(published: PublishedStep, after: Plan) -> frozenset[NodePair]:
    """Return the direct links of the published plan that *after* lacks and that are not removed yet.

    A link is removed at once if it is dead or a node of it is down, is a relay by now or left. Any other is removed
    after both ends have applied a view in which they prefer a relay.
    """
    leaves = {n for n, m in after.members.items() if not m.is_relay} - published.health.down_nodes
    left = _direct_links(published.plan) - _direct_links(after) - published.dead_links()
    removed = {p for p in published.transition.previous_direct_links if all(map(published.evidence.has_applied, p))}
    return frozenset(p for p in left - removed if leaves >= set(p))


def _direct_links(plan: Plan) -> frozenset[NodePair]:
    return frozenset(node_pair(link.a, link.b) for link in plan.links if link.kind is Kind.ACCESS)
