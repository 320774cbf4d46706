"""The next step from the published plan to the one that is wanted.

It follows from what is published, from what nodes acknowledged and from how they report their links. Nothing else is
kept of it. So the next run continues from there, whether the last one crashed or another operator started it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace

from saltext_wgmesh.core.errors import PlanError
from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState, LinkStatus
from saltext_wgmesh.core.liveness.mesh_health import Health
from saltext_wgmesh.core.model.pairs import NodePair
from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.core.transition import step
from saltext_wgmesh.core.transition.evidence import Evidence
from saltext_wgmesh.core.transition.published_step import PublishedStep
from saltext_wgmesh.core.transition.state import Transition
from saltext_wgmesh.master.drafting import policy_pin
from saltext_wgmesh.master.records.mesh_records import MeshRecords
from saltext_wgmesh.master.records.plan_inputs import PlanInputs

ReportsByNode = Mapping[str, Mapping[str, LinkReport]]
"""Node → mesh → its report of its links."""


def next_step(
    records: MeshRecords, wanted: PlanInputs, reports: ReportsByNode, accepted: Container[str], now: float
) -> tuple[PlanInputs, Plan]:
    """Return the inputs to publish now on the way to *wanted*, and their plan; PlanError if *wanted* allows none.

    A relay that the policy no longer has is drained first, by the published policy. One without an *accepted* key goes
    at once. *now* is in seconds since the epoch: a node that has not acknowledged a policy for ``HOLD_LIMIT`` seconds
    holds up no step any longer.
    """
    goal = wanted.plan()
    if not records.head.generation:
        return wanted, goal
    before = records.history.current_plan()
    # The usual run: nothing is in progress and nothing changes, so no evidence is needed.
    if not records.head.transition and not _differs(goal, before):
        return wanted, goal
    evidence = _evidence(records, reports, before, _exhausted(records, wanted, now))
    leaving = frozenset(relay for relay in _relays_leaving(before, goal, wanted.health) if relay in accepted)
    # The published policy drains first: under the new one, leaves would lose the relay before they have another.
    draining = _drain(records, wanted, goal, before, evidence, leaving) if leaving else None
    return draining or _step(before, records, wanted, evidence, goal)


def _drain(
    records: MeshRecords,
    wanted: PlanInputs,
    goal: Plan,
    before: Plan,
    evidence: Evidence,
    leaving: frozenset[str],
) -> tuple[PlanInputs, Plan] | None:
    """The next step that drains the *leaving* relays by the published policy; None once they are drained.

    Also None if the published policy can no longer be planned: that is no reason to stay with it.
    """
    health = wanted.health
    try:
        stay = goal.members.keys() | leaving
        old_policy = records.history.current().inputs
        drained = old_policy.with_current(stay, wanted.allocations, health, wanted.drained | leaving)
        inputs, plan = _step(before, records, drained, evidence, drained.plan())
    except PlanError:
        return None
    absent = health.down_nodes | health.unresponsive | {n for n in before.members if records.ack(n).has_given_up}
    # Where too few other relays are left, a leaf keeps a leaving one as its last choice. More can't be drained.
    relays_of = (inputs.transition.previous_relays, inputs.transition.unrouted_relays)
    with_leaving = {leaf for mapping in relays_of for leaf, relays in mapping.items() if leaving & {*relays}}
    in_transition = with_leaving | {n for n in before.members if not evidence.has_applied(n)}
    return (inputs, plan) if _differs(plan, before) or in_transition - absent else None


def _step(
    before: Plan, records: MeshRecords, inputs: PlanInputs, evidence: Evidence, goal: Plan
) -> tuple[PlanInputs, Plan]:
    def make(transition: Transition) -> Plan:
        return replace(inputs, transition=transition).plan()

    now = PublishedStep(plan=before, transition=records.head.transition, health=inputs.health, evidence=evidence)
    transition, plan = step.next_transition(now, goal, make)
    return replace(inputs, transition=transition), plan


def _differs(plan: Plan, before: Plan) -> bool:
    """Whether a view differs. Neither plan has its PSKs yet."""
    return any(before.views.get(node) != view for node, view in plan.views.items())


def _relays_leaving(before: Plan, after: Plan, health: Health) -> frozenset[str]:
    """The relays of *before* that are no relays in *after*, and that some leaf still has a link to."""
    used = {relay for member in before.members.values() for relay in (*member.relays, *member.unrouted_relays)}
    stay = {node for node, member in after.members.items() if member.is_relay}
    return frozenset(used - stay - health.down_nodes)


def _exhausted(records: MeshRecords, wanted: PlanInputs, now: float) -> frozenset[str]:
    """The nodes that have held up the policy of *wanted* for as long as a node may."""
    change = policy_pin.policy_fingerprint(wanted.raw_policy)
    return frozenset(n for n in records.head.digests if not records.ack(n).may_hold(records.mesh, change, now))


def _evidence(records: MeshRecords, reports: ReportsByNode, plan: Plan, exhausted: Container[str]) -> Evidence:
    """The evidence that acknowledgements and link *reports* give of the published *plan*."""

    def runs(node: str) -> bool:
        # A node that is told nothing has applied all of it, so it holds up no step; nor does an exhausted one.
        return node in exhausted or records.ack(node).digests.get(records.mesh) == records.head.digests.get(node)

    def links_of(pair: NodePair) -> list[LinkStatus]:
        said = ((reports.get(node, {}).get(records.mesh), node, other) for node, other in (pair, pair[::-1]))
        links = [(node, report.links[other]) for report, node, other in said if report and other in report.links]
        # A report may be a moment old: then it is of the interface that the link was on before it was recreated.
        return [link for node, link in links if _is_on_view_interface(link, plan.views.get(node))]

    return Evidence(
        has_applied=runs,
        link_up=lambda pair: any(link.state is LinkState.UP for link in links_of(pair)),
        link_carries=lambda pair: any(link.state is LinkState.UP or link.session_up for link in links_of(pair)),
    )


def _is_on_view_interface(link: LinkStatus, view: View | None) -> bool:
    """Whether *view* has the link on the interface that its report names."""
    interfaces = view.interfaces if view else ()
    return any(i.name == link.interface and any(p.node == link.neighbour for p in i.peers) for i in interfaces)


def transition_can_continue(records: MeshRecords) -> bool:
    """Whether both ends of a kept link, a node in transition, or all nodes that one waits for run what is published.

    Then the next step may be possible within seconds.
    """
    transition, applied = records.head.transition, records.has_applied
    if transition.waiting_nodes and all(map(applied, records.head.placed - records.health.down_nodes)):
        return True
    in_transition = (
        *transition.previous_sockets,
        *transition.dual_addresses,
        *transition.unproven_relays,
        *transition.role_changes,
        *(move.new for move in transition.gateway_moves.values()),
    )
    return any(applied(a) and applied(b) for a, b in transition.links()) or any(map(applied, in_transition))
