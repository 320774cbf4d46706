"""A plan for each mesh, beside what is published now: what ``salt-run wgmesh.plan`` and ``verify`` show, and what a
converge makes real. Drafting has no effect at all.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.core import facts as facts_module
from saltext_wgmesh.core import policy as policy_module
from saltext_wgmesh.core import rotation as rotation_module
from saltext_wgmesh.core import verify
from saltext_wgmesh.core.errors import PlanError, PolicyError, Problem, ProofError
from saltext_wgmesh.core.health import Health
from saltext_wgmesh.core.rotation import Rotation
from saltext_wgmesh.core.secrecy import Secrecy
from saltext_wgmesh.core.types import Facts, MeshPolicy, Plan, Policy, Rejection, View
from saltext_wgmesh.master import guard, inventory, pinned, presharing, rotate, steps
from saltext_wgmesh.master.keyring import Secret
from saltext_wgmesh.master.ledger import Head, Ledger
from saltext_wgmesh.master.record import Origin
from saltext_wgmesh.master.round import NOTHING, Asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A plan for one mesh beside what is published now."""

    policy: MeshPolicy
    head: Head
    plan: Plan
    health: Health
    drained: frozenset[str]
    origin: Origin
    """What the plan was made from; while a rollout is under way not all that is known now."""
    facts: Mapping[str, Facts]
    """Those that are believed."""
    rejected: tuple[Rejection, ...]
    reasons: Mapping[str, str]
    """Accepted nodes with facts that are not in the plan → why."""
    entries: Mapping[str, dict[str, Any]]
    """Node → its record as the ledger keeps it: a view with its digest, or a reason."""
    source: guard.Source
    """What it was made from, and what is held."""
    rotation: Rotation = rotation_module.NOTHING
    """As it is from now on."""
    secrecy: Secrecy = field(default_factory=Secrecy)
    fresh: Secret | None = field(default=None, repr=False)
    """The secret that must be kept before this is published."""

    @property
    def digests(self) -> dict[str, str]:
        """Node → digest of its record."""
        return {node: entry["digest"] for node, entry in self.entries.items()}

    @property
    def changed(self) -> dict[str, dict[str, Any]]:
        """The records that differ from the published ones."""
        return {n: e for n, e in self.entries.items() if self.head.digests.get(n) != e["digest"]}


def draft(
    opts: dict[str, Any],
    ledger: Ledger,
    found: inventory.Inventory | None = None,
    health: Mapping[str, Health] | None = None,
    answers: steps.Answers = MappingProxyType({}),
    asked: Asked = NOTHING,
) -> list[Draft]:
    """A draft for every mesh of the policy, and for those that it has no more and that nodes may still have, in order
    of name; by *health*, or what the ledger has of it. A rollout goes on as far as the *answers* of nodes allow.

    Raises PolicyError or PlanError with everything that is wrong, over all meshes.
    """
    found = found or in_force(ledger, inventory.read(opts))
    policy = policy_module.parse(found.policy)
    look = _look(ledger, found, asked.confirm)
    sources: dict[str, guard.Source] = {}
    drafts: list[Draft] = []
    problems: list[Problem] = []
    for name in _meshes(ledger, policy):
        try:
            sources[name] = guard.source(look, name, policy.meshes.get(name), found.policy.get(name))
            known = (health or {}).get(name) or ledger.health(name)
            one = _draft_mesh(ledger, sources[name], found, known, answers, asked)
            one = one if sources[name].retired else _with_turns(ledger, one, asked)
            drafts.append(_with_preshared_keys(opts, ledger, one, renew=name in asked.renew))
        except PlanError as error:
            problems += error.problems
    if problems:
        raise PlanError(problems)
    _refuse_conflicts(policy, sources)
    problems += _shared_ports(one.plan for one in drafts)
    if problems:
        raise PlanError(problems)
    return drafts


def held(opts: dict[str, Any], ledger: Ledger) -> dict[str, guard.Held]:
    """Mesh → what of it would be held now, whether a plan can be made or not. PolicyError or PlanError as above."""
    found = in_force(ledger, inventory.read(opts))
    policy, look = policy_module.parse(found.policy), _look(ledger, found)
    return {
        name: guard.source(look, name, policy.meshes.get(name), found.policy.get(name)).held
        for name in _meshes(ledger, policy)
    }


def _look(ledger: Ledger, found: inventory.Inventory, confirmed: frozenset[str] = frozenset()) -> guard.Look:
    report = facts_module.parse(found.mine, found.accepted)
    return guard.Look(ledger=ledger, report=report, accepted=found.accepted, confirmed=confirmed)


def _meshes(ledger: Ledger, policy: Policy) -> list[str]:
    """Those of the policy, and those that nodes may still have, sorted."""
    return sorted({*policy.meshes, *(mesh for mesh in ledger.meshes() if ledger.head(mesh).digests)})


def _shared_ports(plans: Iterable[Plan]) -> list[Problem]:
    """One problem for each two meshes that would listen on one UDP port of a node: ports grow with each relay that
    comes in place of another, so the policy alone does not tell."""
    owners: dict[tuple[str, int], str] = {}
    found: dict[tuple[str, str], Problem] = {}
    for plan in plans:
        for node, port in sorted({(n, i.listen_port) for n, v in plan.views.items() for i in v.interfaces}):
            other = owners.setdefault((node, port), plan.mesh)
            if port and other != plan.mesh:
                what = f"UDP port {port} of {node} is also one of the mesh {other}"
                do = "choose ports that are further apart: one more is taken for each relay that there ever was"
                found.setdefault((other, plan.mesh), Problem(where=f"wgmesh:{plan.mesh}:listen_port", what=what, do=do))
    return list(found.values())


def _refuse_conflicts(policy: Policy, sources: Mapping[str, guard.Source]) -> None:
    """PolicyError if a mesh stands in the way of others that is there only because its end is held."""
    gone = {mesh: one for mesh, one in sources.items() if one.held and mesh not in policy.meshes}
    if not gone:
        return
    try:
        policy_module.parse({mesh: one.raw_policy for mesh, one in sources.items() if not one.retired})
    except PolicyError as error:
        held = [Problem(where=f"wgmesh:{mesh}", what=one.held["why"], do=one.held["do"]) for mesh, one in gone.items()]
        raise PolicyError([*error.problems, *held]) from None


def _draft_mesh(
    ledger: Ledger,
    source: guard.Source,
    found: inventory.Inventory,
    health: Health,
    answers: steps.Answers,
    asked: Asked,
) -> Draft:
    mesh, believed = source.policy, source.believed
    head = ledger.head(mesh.name)
    wanted = Origin(
        policy=mesh,
        facts=believed.facts,
        register=head.register,
        health=health,
        drained=(head.drained | asked.drain).difference(asked.undrain).intersection(found.accepted),
        turns=frozenset(head.rotation.turns),
        raw_policy=source.raw_policy,
    )
    # Without nodes there is nobody to lose a packet.
    goal = (wanted, wanted.plan()) if source.retired else None
    origin, plan = goal or steps.next_step(ledger, mesh.name, wanted, answers, found.accepted)
    # Who has no accepted key is told nothing: there is nobody to tell.
    reasons = {n: why for n, why in _reasons(mesh, believed, plan).items() if n in found.accepted}
    entries = _entries(plan, reasons, {r.node for r in believed.rejected}, head)
    if source.retired:
        reasons = {n: f"the policy has the mesh {mesh.name} no more" for n in head.digests if n in found.accepted}
        entries = {n: _farewell(why) for n, why in reasons.items()}
    return Draft(
        policy=mesh,
        head=head,
        plan=plan,
        health=health,
        drained=wanted.drained,
        origin=origin,
        facts=believed.facts,
        rejected=believed.rejected,
        reasons=reasons,
        entries=entries,
        source=source,
    )


def in_force(ledger: Ledger, found: inventory.Inventory) -> inventory.Inventory:
    """*found*, with what was rolled back as it was then."""
    return replace(found, policy=pinned.in_force(ledger, found.policy))


def _farewell(reason: str) -> dict[str, Any]:
    return {"reason": reason, "removed": True, "digest": f"removed: {reason}"}


def _with_turns(ledger: Ledger, one: Draft, asked: Asked) -> Draft:
    """The draft with those told to turn to their next key who may now."""
    rotation = rotate.step(ledger, one.policy, scene(one, one.head), asked.rotate)
    origin = replace(one.origin, turns=frozenset(rotation.turns))
    if origin == one.origin:
        return replace(one, rotation=rotation)
    plan = rotation_module.turned(one.plan, origin.turns)
    entries = _entries(plan, one.reasons, {r.node for r in one.rejected}, one.head)
    return replace(one, plan=plan, origin=origin, rotation=rotation, entries=entries)


def scene(one: Draft, head: Head) -> rotate.Scene:
    """What a rotation of keys looks at; *head* is as it stands now."""
    return rotate.Scene(plan=one.plan, head=head, health=one.health, now=time.time())


def _with_preshared_keys(opts: dict[str, Any], ledger: Ledger, one: Draft, *, renew: bool) -> Draft:
    """*one* with what stands for each pair's preshared key."""
    found = presharing.mark(opts, ledger, one.policy, one.plan, one.health, renew=renew)
    entries = one.entries
    if found.plan is not one.plan:
        entries = {n: _entry(found.plan.views[n]) if n in found.plan.views else e for n, e in entries.items()}
    return replace(one, plan=found.plan, entries=entries, secrecy=found.secrecy, fresh=found.fresh)


def _entry(view: View) -> dict[str, Any]:
    return {**view.as_dict(), "digest": view.digest()}


def _reasons(mesh: MeshPolicy, believed: facts_module.Believed, plan: Plan) -> dict[str, str]:
    strangers = {
        node: f"no entry of wgmesh:{mesh.name}:nodes matches this id"
        for node in believed.facts
        if node not in plan.members and node not in plan.left_out
    }
    refused = {r.node: f"{r.reason}; {r.do}" for r in believed.rejected if r.node not in plan.members}
    return dict(sorted({**strangers, **refused, **plan.left_out}.items()))


def _entries(plan: Plan, reasons: Mapping[str, str], refused: Container[str], head: Head) -> dict[str, dict[str, Any]]:
    """The record of each node. One that was a member and is no more in the policy is told to leave; one
    that only can't be placed now keeps what it runs."""
    entries = {node: _entry(view) for node, view in plan.views.items()}
    for node, reason in reasons.items():
        was_stranger = head.digests.get(node, "reason:").startswith("reason:")
        if node in plan.left_out:
            entries[node] = {"reason": reason, "pending": True, "digest": f"reason: {reason}"}
        elif was_stranger or node in refused:
            entries[node] = {"reason": reason, "digest": f"reason: {reason}"}
        else:
            entries[node] = _farewell(reason)
    return dict(sorted(entries.items()))


def prove(found: Draft) -> None:
    """Return if the plan holds its proof; ProofError with what does not."""
    problems: tuple[Problem, ...] = verify.check(found.plan)
    if problems:
        raise ProofError(problems)
