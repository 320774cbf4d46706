"""The next step from the plan that is published to the one that is wanted: the same at every run, and kept nowhere.

It follows from what is published, from what nodes acknowledged and from how they say that their links are. So whoever
looks next, after a crash or as a second operator, goes on from there.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace

from saltext_wgmesh.core import rollout
from saltext_wgmesh.core.errors import PlanError
from saltext_wgmesh.core.health import Health
from saltext_wgmesh.core.linkstate import Link, LinkReport, LinkState
from saltext_wgmesh.core.moves import Pair
from saltext_wgmesh.core.rollout import Kept, Witness
from saltext_wgmesh.core.types import Plan, View
from saltext_wgmesh.master import record
from saltext_wgmesh.master.ledger import Head, Ledger
from saltext_wgmesh.master.push import is_stuck
from saltext_wgmesh.master.record import Origin

Answers = Mapping[str, Mapping[str, LinkReport]]
"""Node → mesh → what it reports."""


def next_step(
    ledger: Ledger, mesh: str, wanted: Origin, answers: Answers, accepted: Container[str]
) -> tuple[Origin, Plan]:
    """What to publish now on the way to *wanted*, and its plan; PlanError if *wanted* allows none.

    A relay that the policy has no more is drained first, by the policy that is published; but one without an *accepted*
    key goes at once.
    """
    head, goal = ledger.head(mesh), wanted.plan()
    if not head.generation:
        return wanted, goal
    before = record.published(ledger, mesh).plan
    if not head.kept and not _differs(goal, before):
        return wanted, goal
    witness = _witness(ledger, mesh, head, answers, before)
    leaving = frozenset(r for r in _leaving(before, goal, wanted.health) if r in accepted)
    if leaving:
        # What hinders the old policy by now, if anything does, is no reason to stay with it.
        try:
            old = record.origin_of(ledger, mesh)
            stays = goal.members.keys() | leaving
            drained = old.of_now(stays, wanted.register, wanted.health, wanted.drained | leaving)
            step = _step(before, head, drained, witness, drained.plan())
            absent = (
                wanted.health.down
                | wanted.health.silent
                | {n for n in before.members if is_stuck(ledger.acknowledged(n))}
            )
            # Where too few others are left it stays behind them in the lists, and nothing more can be done.
            held = {n for homes in (step[0].kept.homes, step[0].kept.idle) for n, r in homes.items() if leaving & {*r}}
            amid = held | {n for n in before.members if not witness.runs(n)}
            if _differs(step[1], before) or amid - absent:
                return step
        except PlanError:
            pass
    return _step(before, head, wanted, witness, goal)


def _step(before: Plan, head: Head, origin: Origin, witness: Witness, goal: Plan) -> tuple[Origin, Plan]:
    def make(kept: Kept) -> Plan:
        return replace(origin, kept=kept).plan()

    kept, plan = rollout.step(before, head.kept, goal, make, origin.health, witness)
    return replace(origin, kept=kept), plan


def _differs(plan: Plan, before: Plan) -> bool:
    """Whether a view does, preshared keys aside: neither has those yet."""
    return any(before.views.get(node) != view for node, view in plan.views.items())


def _leaving(before: Plan, after: Plan, health: Health) -> frozenset[str]:
    """The relays of *before* that are none in *after*, and to which some leaf still has a link."""
    used = {relay for member in before.members.values() for relay in (*member.homes, *member.idle)}
    stay = {node for node, member in after.members.items() if member.is_relay}
    return frozenset(used - stay - health.down)


def _witness(ledger: Ledger, mesh: str, head: Head, answers: Answers, plan: Plan | None = None) -> Witness:
    def runs(node: str) -> bool:
        return bool(ledger.acknowledged(node).get("digests", {}).get(mesh) == head.digests.get(node))

    def said_of(pair: Pair) -> list[Link]:
        reports = ((answers.get(node, {}).get(mesh), node, other) for node, other in (pair, pair[::-1]))
        links = [(node, report.links[other]) for report, node, other in reports if report and other in report.links]
        # Of a link that was made anew on another interface, a node may speak as it was a moment ago.
        return [link for node, link in links if plan is None or _is_of(link, plan.views.get(node))]

    return Witness(
        runs=runs,
        hears=lambda pair: any(link.state is LinkState.UP for link in said_of(pair)),
        alive=lambda pair: any(link.state is LinkState.UP or link.heard for link in said_of(pair)),
    )


def _is_of(link: Link, view: View | None) -> bool:
    """Whether *view* has the link on that interface."""
    interfaces = view.interfaces if view else ()
    return any(i.name == link.interface and any(p.node == link.neighbour for p in i.peers) for i in interfaces)


def concerned(head: Head) -> frozenset[str]:
    """The nodes whose word a rollout that is under way waits for."""
    kept = head.kept
    # A relay can tell how it hears all its neighbours.
    relays = head.register.numbers if kept.places or kept.fresh else ()
    everyone = head.digests if kept.addresses or kept.moves else ()
    across = {n for node, one in kept.crossing.items() for n in (node, *one.homes, *one.idle)}
    return frozenset({*everyone, *kept.homes, *kept.idle, *(n for pair in kept.pairs for n in pair), *relays, *across})


def may_go_on(ledger: Ledger, mesh: str) -> bool:
    """Whether a link is kept whose two ends run what is published: then it is a matter of seconds."""
    head = ledger.head(mesh)
    runs = _witness(ledger, mesh, head, {}).runs
    return any(runs(a) and runs(b) for a, b in _links(head.kept)) or any(
        runs(node)
        for node in (
            *head.kept.places,
            *head.kept.addresses,
            *head.kept.fresh,
            *head.kept.crossing,
            *(move.new for move in head.kept.moves.values()),
        )
    )


def waits_for(kept: Kept) -> list[str]:
    """The links that are kept, as ``a--b``, the nodes that are heard where they were, the subnets on their way to
    another gateway, the relays that are not heard yet, and the nodes between relay and leaf, sorted."""
    links = ("--".join(pair) for pair in _links(kept))
    return sorted([*links, *kept.places, *kept.addresses, *kept.moves, *kept.fresh, *kept.crossing])


def _links(kept: Kept) -> list[Pair]:
    found = {(leaf, r) for homes in (kept.homes, kept.idle) for leaf, relays in homes.items() for r in relays}
    return sorted({(min(pair), max(pair)) for pair in (*found, *kept.pairs)})
