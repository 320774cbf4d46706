"""A relay that becomes a leaf, a leaf that becomes a relay, and a relay that is new.

A relay that becomes a leaf first stops forwarding while its links are still trunks. Then one link after the other is
drained, created again as an uplink and used again. A leaf becomes a relay in the opposite order. No node depends on a
new relay until all its neighbours hear it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from saltext_wgmesh.core.model.pairs import node_pair
from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.core.transition.evidence import Evidence
from saltext_wgmesh.core.transition.published_step import PublishedStep
from saltext_wgmesh.core.transition.state import RoleChange


def role_changes(published: PublishedStep, after: Plan) -> Mapping[str, RoleChange]:
    """Return the nodes that become a leaf or a relay and are still between the two in the next step.

    A node gets its new role at once if

    - it has links to fewer than two other relays, since then there is no second path,
    - it is down, or
    - it is a relay that some leaf still uses, unless the master can't tell that leaf.
    """
    found: dict[str, RoleChange] = {}
    before, health = published.plan, published.health
    cannot_be_told = health.down_nodes | health.unresponsive
    # A leaf that can't be told may keep its view for days, and must not block the change for as long.
    used_by_leaves = {r for leaf, m in before.members.items() if leaf not in cannot_be_told for r in m.relays}
    dead = published.dead_links()
    relays_after, relays_before = ({n for n, m in plan.members.items() if m.is_relay} for plan in (after, before))
    stay = sorted(relays_after & relays_before - health.down_nodes)
    for node in sorted(before.members.keys() & after.members.keys() - health.down_nodes):
        old, new, now = before.members[node], after.members[node], published.transition.role_changes.get(node)
        if now is None and (old.is_relay is new.is_relay or node in used_by_leaves):
            continue
        linked = [r for r in stay if node_pair(node, r) not in dead]
        had = (*now.relays, *now.unrouted_relays) if now else old.relays
        # The order is the one that other nodes know: a relay sends on to the relays behind it in that order.
        position = {r: i for i, r in enumerate(before.allocations.relays.get(node, ()))}
        had = tuple(sorted(had, key=lambda r: position.get(r, len(position))))
        relays = tuple(r for r in (had if new.is_relay else new.relays) if r in linked)
        if len(relays) < 2:
            continue
        following: RoleChange | None
        if now:
            lost = {*before.members}.difference(linked)
            following = _advance_role_change(node, now.without(lost), relays, new.is_relay, published.evidence)
        elif new.is_relay:
            following = _drain_link(RoleChange(socket=old.access_socket, relays=relays), relays[-1])
        else:
            unrouted = tuple(r for r in linked if r not in relays)
            following = RoleChange(
                socket=old.access_socket, relays=relays, unrouted_relays=unrouted, trunk_linked_relays=tuple(linked)
            )
        if following:
            found[node] = following
    return MappingProxyType(found)


def _advance_role_change(
    node: str, now: RoleChange, relays: tuple[str, ...], to_relay: bool, evidence: Evidence
) -> RoleChange | None:
    """Return the next step of *node*, which ends with *relays*; None after the last step."""
    others = tuple(r for r in now.relays if r not in relays)
    if len({*now.relays, *now.unrouted_relays}) < 2 or not now.relays:
        # A relay was lost in the middle of the change: all other links are used as they are.
        left = tuple(r for r in now.unrouted_relays if r not in relays)
        return replace(now, relays=(*relays, *others), unrouted_relays=left)
    # One end that has stopped using a link proves nothing: the other end may still send through it.
    if not all(evidence.has_applied(n) for n in (node, *now.relays, *now.unrouted_relays)):
        return now
    if now.unrouted_relays:
        # No route uses these links any longer: each is removed, or created again as the other kind.
        recreated = {*now.unrouted_relays} & {*relays} if to_relay else set()
        trunks = {*now.trunk_linked_relays}.difference(now.unrouted_relays) | recreated
        return replace(now, relays=(*relays, *others), unrouted_relays=(), trunk_linked_relays=tuple(sorted(trunks)))
    if not {*relays} <= {*now.relays} or not all(evidence.link_up(node_pair(node, r)) for r in relays):
        return replace(now, relays=(*relays, *others))
    if others:
        return replace(now, relays=relays, unrouted_relays=others)
    wrong_kind = [r for r in relays if (r in now.trunk_linked_relays) is not to_relay]
    # The least preferred link first, so that the first choice is interrupted last.
    return _drain_link(replace(now, relays=relays), wrong_kind[-1]) if wrong_kind else None


def _drain_link(now: RoleChange, relay: str) -> RoleChange:
    """Return *now*, where no route uses the link to *relay*."""
    return replace(now, relays=tuple(r for r in now.relays if r != relay), unrouted_relays=(relay,))


def unproven_relays(published: PublishedStep, after: Plan) -> frozenset[str]:
    """Return the new relays of *after* that some neighbour does not hear yet.

    Empty if all relays are new. A relay that is down is not among them, since no node depends on it anyway. The caller
    plans *after* again, so that no node depends on these relays.
    """
    relays = {n for n, m in after.members.items() if m.is_relay}
    had = {n for n, m in published.plan.members.items() if m.is_relay} - published.transition.unproven_relays
    if not relays & had:
        return frozenset()
    candidates = published.transition.unproven_relays & published.plan.members.keys()
    proven = {r for r in candidates if published.is_heard_by_neighbours(r)}
    return frozenset(relays - had - proven - published.health.down_nodes)
