"""A node that gets another address keeps both for a while.

The node is reached at both; then it sends from the new address; then the old address is removed.
"""

from __future__ import annotations

from collections.abc import Mapping

from saltext_wgmesh.core.model.addresses import address_family
from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.core.transition.published_step import PublishedStep


def dual_addresses(published: PublishedStep, after: Plan) -> Mapping[str, tuple[str, ...]]:
    """Return node → its addresses, for the nodes that have two of a family in the next step.

    Each step waits until all nodes that are not down have applied the step before. A node that does not answer may have
    links that carry, and accepts nothing from an address that it does not know.
    """
    all_applied = all(
        published.evidence.has_applied(node)
        for node in published.plan.members
        if node not in published.health.down_nodes
    )
    found: dict[str, tuple[str, ...]] = {}
    for node, member in after.members.items():
        has = published.plan.members[node].addresses if node in published.plan.members else ()
        old, new = set(has) - set(member.addresses), set(member.addresses) - set(has)
        # A family that the node has no longer is no renumbering.
        renumbered = {address_family(a) for a in old} & {address_family(a) for a in member.addresses}
        dual = published.transition.dual_addresses.get(node)
        if dual is None and old and new and renumbered:
            found[node] = _by_family((*has, *(a for a in member.addresses if a in new)))
        elif dual is not None and old and not all_applied:
            found[node] = dual
        elif dual is not None and _sends_from(dual, old):
            found[node] = _by_family((*member.addresses, *(a for a in dual if a in old)))
    return found


def _sends_from(addresses: tuple[str, ...], some: set[str]) -> bool:
    """Return whether a node with *addresses* sends from one of *some*: the first of a family is its source."""
    sources = {address_family(a): a for a in reversed(addresses)}
    return bool(some & set(sources.values()))


def _by_family(addresses: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(addresses, key=address_family))
