"""A plan for each mesh, beside what is published now.

``salt-run wgmesh.plan`` and ``verify`` show drafts, and a converge publishes them. Drafting changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from saltext_wgmesh.core.errors import PlanError, PolicyError, Problem, ProofError
from saltext_wgmesh.core.inputs import policy as policy_module
from saltext_wgmesh.core.inputs import trusted_facts
from saltext_wgmesh.core.inputs.converters import Problems
from saltext_wgmesh.core.inputs.key_claims import KeyOwners, key_owners
from saltext_wgmesh.core.inputs.policy_checks import check_former_networks, check_tables
from saltext_wgmesh.core.keys import rotation as rotation_module
from saltext_wgmesh.core.keys.psk_rollover import PskRollover
from saltext_wgmesh.core.keys.rotation import Rotation
from saltext_wgmesh.core.liveness.mesh_health import Health
from saltext_wgmesh.core.model.addresses import first_of_each_family
from saltext_wgmesh.core.model.facts import Facts, Rejection
from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.core.model.policy import MeshPolicy, Policy
from saltext_wgmesh.core.planning import addresses
from saltext_wgmesh.core.proof import prove
from saltext_wgmesh.master.drafting import key_rotation, policy_pin, prune_guard, psk
from saltext_wgmesh.master.drafting.key_rotation import RotationContext
from saltext_wgmesh.master.drafting.next_step import ReportsByNode, next_step
from saltext_wgmesh.master.drafting.prune_guard import GuardInput, PlanSource
from saltext_wgmesh.master.records.assignment import Assignment, AssignmentKind
from saltext_wgmesh.master.records.conduct import FACTS
from saltext_wgmesh.master.records.decisions import HeldLoss
from saltext_wgmesh.master.records.inventory import Inventory
from saltext_wgmesh.master.records.mesh_head import MeshHead
from saltext_wgmesh.master.records.mesh_records import Acks, LedgerSnapshot, MeshRecords
from saltext_wgmesh.master.records.plan_inputs import PlanInputs
from saltext_wgmesh.master.records.psk_secrets import PskSecrets, Secret
from saltext_wgmesh.master.requests.request import ConvergeRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftInput:
    """The inputs of the drafts of all meshes."""

    snapshot: LedgerSnapshot
    inventory: Inventory
    """With the effective policy."""
    secrets: Callable[[str], PskSecrets]
    """Mesh → the secrets of its PSKs."""
    now: float
    """Seconds since the epoch."""
    reports: ReportsByNode = field(default_factory=lambda: MappingProxyType({}))
    """The link reports of this run. A transition advances as far as these allow."""
    request: ConvergeRequest = ConvergeRequest.EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A plan for one mesh beside what is published now."""

    policy: MeshPolicy
    head: MeshHead
    """The published head."""
    plan: Plan
    health: Health
    drained: frozenset[str]
    inputs: PlanInputs
    """The inputs of the plan. During a transition they are not all that is known now."""
    facts: Mapping[str, Facts]
    """Node → its trusted facts."""
    rejected: tuple[Rejection, ...]
    reasons: Mapping[str, str]
    """Accepted nodes with facts that are not in the plan → why."""
    records: Mapping[str, Assignment]
    """Node → what it is assigned; all nodes that are told anything of this mesh."""
    source: PlanSource
    rotation: Rotation = rotation_module.NO_ROTATION
    """As it is from now on."""
    psk_rollover: PskRollover = field(default_factory=PskRollover)
    """As it is from now on."""
    new_secret: Secret | None = field(default=None, repr=False)
    """The secret that must be saved before this is published."""

    @property
    def digests(self) -> dict[str, str]:
        """Node → digest of its assignment."""
        return {node: record.digest for node, record in self.records.items()}

    @property
    def without_view(self) -> dict[str, AssignmentKind]:
        """Node that has no view → what it is assigned instead."""
        return {n: record.kind for n, record in self.records.items() if record.kind is not AssignmentKind.VIEW}

    @property
    def warnings(self) -> list[str]:
        """Sentences on what the operator should change, although the plan can be published."""
        allocated = self.plan.allocations.addresses
        # The others are former addresses, which go without the operator.
        assigned = {node: first_of_each_family(allocated.get(node, ())) for node in self.plan.members}
        return [str(problem) for problem in addresses.reserved_in_use(self.policy, assigned)]

    @property
    def changed(self) -> dict[str, Assignment]:
        """The assignments that differ from the published ones."""
        return {n: record for n, record in self.records.items() if self.head.digests.get(n) != record.digest}

    def rotation_context(self, head: MeshHead, acks: Acks, now: float) -> RotationContext:
        """The context of a decision on keys; *head* is the one that is published at *now*."""
        return RotationContext(plan=self.plan, head=head, health=self.health, acks=acks, now=now)


def draft(given: DraftInput) -> list[Draft]:
    """A draft for every mesh of the policy, and for those that nodes may still have, in order of their names.

    PolicyError or PlanError with everything that is wrong, over all meshes.
    """
    policy = policy_module.parse_policy(given.inventory.policy)
    _refuse_tables_of_former_meshes(given.snapshot, policy)
    flapping = {n for n, ack in given.snapshot.acks.items() if ack.conduct.facts.is_paused(FACTS, given.now)}
    guard_input = replace(_guard_input(given.snapshot, given.inventory, given.request.confirm), flapping=flapping)
    sources: dict[str, PlanSource] = {}
    drafts: list[Draft] = []
    problems: list[Problem] = []
    for mesh in _meshes(given.snapshot, policy):
        records = given.snapshot.mesh(mesh)
        try:
            sources[mesh] = _source(guard_input, records, policy, given.inventory)
            drafts.append(_draft_mesh(given, records, sources[mesh]))
        except PlanError as error:
            problems += error.problems
    if problems:
        raise PlanError(problems)
    _refuse_conflicts(policy, sources)
    _refuse_former_networks(policy, drafts)
    shared_ports = _shared_ports(one.plan for one in drafts)
    if shared_ports:
        raise PlanError(shared_ports)
    return drafts


def held_losses(snapshot: LedgerSnapshot, inventory: Inventory) -> dict[str, HeldLoss | None]:
    """Mesh → the loss that would be held now, whether a plan can be made or not. PolicyError or PlanError as above."""
    policy, guard_input = policy_module.parse_policy(inventory.policy), _guard_input(snapshot, inventory)
    return {
        mesh: _source(guard_input, snapshot.mesh(mesh), policy, inventory).held for mesh in _meshes(snapshot, policy)
    }


def effective_inventory(snapshot: LedgerSnapshot, inventory: Inventory) -> Inventory:
    """*inventory*, as read, with earlier policies for the meshes that are rolled back."""
    return replace(inventory, policy=policy_pin.effective_policy(snapshot, inventory.policy))


def require_proof(found: Draft) -> None:
    """Return if the plan holds its proof; ProofError with what does not."""
    problems: tuple[Problem, ...] = prove.prove(found.plan)
    if problems:
        raise ProofError(problems)


def _guard_input(snapshot: LedgerSnapshot, inventory: Inventory, confirmed: frozenset[str] = frozenset()) -> GuardInput:
    accepted = inventory.accepted
    report = trusted_facts.parse_facts(inventory.mine, accepted)
    return GuardInput(report=report, accepted=accepted, confirmed=confirmed, owners=_owners(snapshot, accepted))


def _owners(snapshot: LedgerSnapshot, accepted: Mapping[str, str]) -> KeyOwners:
    """The owners of public keys by all meshes. A node has one key in all of them, and may not be known to each."""
    placed: list[Facts] = []
    others: list[Facts] = []
    for head in (records.head for records in snapshot.meshes.values()):
        with_view = head.placed
        for node, facts in head.facts.items():
            if accepted.get(node) == facts.salt_key:
                (placed if node in with_view else others).append(facts)
    return key_owners([placed, others])


def _source(given: GuardInput, records: MeshRecords, policy: Policy, inventory: Inventory) -> PlanSource:
    mesh = records.mesh
    return prune_guard.choose_source(given, records, policy.meshes.get(mesh), inventory.policy.get(mesh))


def _meshes(snapshot: LedgerSnapshot, policy: Policy) -> list[str]:
    """The meshes of the policy, and those that nodes may still have, sorted."""
    return sorted({*policy.meshes, *(mesh for mesh, records in snapshot.meshes.items() if records.head.digests)})


# --- one mesh ------------------------------------------------------------------------------------------


def _draft_mesh(given: DraftInput, records: MeshRecords, source: PlanSource) -> Draft:
    planned = _planned(given, records, source)
    activated = planned if source.is_retired else _with_activations(planned, records.acks, given)
    return _with_psks(activated, records, given)


def _planned(given: DraftInput, records: MeshRecords, source: PlanSource) -> Draft:
    """The draft by policy, facts and health; its nodes run the keys that they have."""
    head, believed, accepted = records.head, source.believed, given.inventory.accepted
    wanted = PlanInputs(
        policy=source.policy,
        facts=believed.facts,
        allocations=head.allocations,
        health=records.health,
        drained=(head.drained | given.request.drain).difference(given.request.undrain).intersection(accepted),
        activated_keys=frozenset(head.rotation.activated),
        raw_policy=source.raw_policy,
    )
    if source.is_retired:
        # Without members no packet can be lost, so nothing is done in steps.
        inputs, plan = wanted, wanted.plan()
        reason = f"the policy no longer has the mesh {source.policy.name}"
        reasons = {node: reason for node in head.digests if node in accepted}
        assignments = {node: _removal_record(reason) for node in reasons}
    else:
        inputs, plan = next_step(records, wanted, given.reports, accepted, given.now)
        # Nodes without an accepted key can be told nothing.
        reasons = {n: why for n, why in _reasons(source, plan).items() if n in accepted}
        assignments = _assignments(plan, reasons, {r.node for r in believed.rejected}, head)
    return Draft(
        policy=source.policy,
        head=head,
        plan=plan,
        health=records.health,
        drained=wanted.drained,
        inputs=inputs,
        facts=believed.facts,
        rejected=believed.rejected,
        reasons=reasons,
        records=assignments,
        source=source,
    )


def _with_activations(one: Draft, acks: Acks, given: DraftInput) -> Draft:
    """The draft in which those nodes activate their next keys that may do so now."""
    context = one.rotation_context(one.head, acks, given.now)
    rotation = key_rotation.advance_rotation(one.policy, context, given.request.rotate, given.request.force_rotation)
    inputs = replace(one.inputs, activated_keys=frozenset(rotation.activated))
    # Most runs change no key. The views of a large mesh are then neither made nor hashed a second time.
    if inputs == one.inputs:
        return replace(one, rotation=rotation)
    plan = rotation_module.with_activation(one.plan, inputs.activated_keys)
    assignments = _assignments(plan, one.reasons, {r.node for r in one.rejected}, one.head)
    return replace(one, plan=plan, inputs=inputs, rotation=rotation, records=assignments)


def _with_psks(one: Draft, records: MeshRecords, given: DraftInput) -> Draft:
    """The draft in whose views each peer has the ids of its PSKs."""
    psk_input = psk.PskInput(
        policy=one.policy,
        plan=one.plan,
        health=one.health,
        now=given.now,
        rotate=one.policy.name in given.request.rotate_psk,
    )
    found = psk.assign_psks(given.secrets(one.policy.name), records, psk_input)
    assignments = one.records
    if found.plan is not one.plan:
        views = found.plan.views
        # PSK ids are part of a view, so its digest has to follow: nodes are pushed to by digest.
        assignments = {n: Assignment.of_view(views[n]) if n in views else old for n, old in assignments.items()}
    return replace(
        one,
        plan=found.plan,
        records=assignments,
        psk_rollover=found.rollover,
        new_secret=found.new_secret,
    )


def _reasons(source: PlanSource, plan: Plan) -> dict[str, str]:
    """Node with facts that is not in *plan* → why."""
    unmatched = {
        node: f"no entry of wgmesh:{source.policy.name}:nodes matches this id"
        for node in source.believed.facts
        if node not in plan.members and node not in plan.unplaced
    }
    refused = {r.node: f"{r.reason}; {r.remedy}" for r in source.believed.rejected if r.node not in plan.members}
    return dict(sorted({**unmatched, **refused, **plan.unplaced}.items()))


def _assignments(
    plan: Plan, reasons: Mapping[str, str], refused: Container[str], head: MeshHead
) -> dict[str, Assignment]:
    """The assignment of each node.

    A former member that the policy no longer matches is told to leave. A node that only can't be placed now keeps
    what it runs, and so does one whose facts were *refused*.
    """
    assignments = {node: Assignment.of_view(view) for node, view in plan.views.items()}
    for node, reason in reasons.items():
        if node in plan.unplaced:
            assignments[node] = Assignment.without_view(AssignmentKind.UNPLACED, reason)
        elif node in refused or not head.is_member_or_leaving(node):
            assignments[node] = Assignment.without_view(AssignmentKind.EXCLUDED, reason)
        else:
            assignments[node] = _removal_record(reason)
    return dict(sorted(assignments.items()))


def _removal_record(reason: str) -> Assignment:
    return Assignment.without_view(AssignmentKind.LEAVE, reason)


# --- all meshes ----------------------------------------------------------------------------------------


def _shared_ports(plans: Iterable[Plan]) -> list[Problem]:
    """One problem for each two meshes that would listen on one UDP port of a node.

    The policy alone does not tell: a mesh takes one more port for each relay that ever replaced another.
    """
    owners: dict[tuple[str, int], str] = {}
    found: dict[tuple[str, str], Problem] = {}
    for plan in plans:
        for node, port in sorted({(n, i.listen_port) for n, v in plan.views.items() for i in v.interfaces}):
            other = owners.setdefault((node, port), plan.mesh)
            if port and other != plan.mesh:
                what = f"UDP port {port} of {node} is also one of the mesh {other}"
                do = "choose ports that are further apart: one more is taken for each relay that there ever was"
                found.setdefault(
                    (other, plan.mesh), Problem(path=f"wgmesh:{plan.mesh}:listen_port", message=what, remedy=do)
                )
    return list(found.values())


def _refuse_tables_of_former_meshes(snapshot: LedgerSnapshot, policy: Policy) -> None:
    """PolicyError if a mesh has the routing table of one that the policy no longer has, and that nodes may still have.

    A node that is told late to leave that mesh would empty the table.
    """
    problems, former = Problems(), set(_meshes(snapshot, policy)).difference(policy.meshes)
    check_tables(policy.meshes, former, problems)
    if problems.found:
        raise PolicyError(problems.found)


def _refuse_former_networks(policy: Policy, drafts: Iterable[Draft]) -> None:
    """PolicyError if the policy gives away networks in which nodes of a mesh still have former addresses."""
    problems, former = Problems(), {one.plan.mesh: one.inputs.transition.former_networks for one in drafts}
    if any(former.values()):
        check_former_networks([*policy.meshes.values()], former, problems)
    if problems.found:
        raise PolicyError(problems.found)


def _refuse_conflicts(policy: Policy, sources: Mapping[str, PlanSource]) -> None:
    """PolicyError if a mesh conflicts with others and is only there because its removal is held."""
    held = {mesh: one.held for mesh, one in sources.items() if one.held and mesh not in policy.meshes}
    if not held:
        return
    try:
        policy_module.parse_policy({mesh: one.raw_policy for mesh, one in sources.items() if not one.is_retired})
    except PolicyError as error:
        holds = [Problem(path=f"wgmesh:{mesh}", message=loss.why, remedy=loss.remedy) for mesh, loss in held.items()]
        raise PolicyError([*error.problems, *holds]) from None
