"""A master with its ledger in memory, and nodes that are played by values."""

from __future__ import annotations

import base64
import copy
import functools
import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pytest

from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState, LinkStatus
from saltext_wgmesh.core.model.plan import Plan
from saltext_wgmesh.master.converge import converge
from saltext_wgmesh.master.drafting.draft import Draft, DraftInput, draft, effective_inventory
from saltext_wgmesh.master.environment import Environment
from saltext_wgmesh.master.fleet.jobs import JobResult, Urgent, nothing_urgent
from saltext_wgmesh.master.records import inventory, mesh_records
from saltext_wgmesh.master.records.inventory import Inventory
from saltext_wgmesh.master.records.ledger import Ledger
from saltext_wgmesh.master.records.psk_secrets import PskSecrets
from saltext_wgmesh.master.records.published import published
from saltext_wgmesh.master.report import MeshReport
from saltext_wgmesh.master.requests.request import ConvergeRequest
from tests.unit.harness.memory_cache import MemoryCache


def mine(node: str, **changes: Any) -> dict[str, Any]:
    """The facts of *node* as its mine has them."""
    digest = hashlib.sha256(node.encode()).digest()
    own = {
        "schema": 1,
        "public_key": base64.b64encode(digest).decode(),
        "salt_key": f"key of {node}",
        "underlay": [f"192.0.2.{1 + digest[0] % 250}"],
        "networks": [],
        "ipv6": True,
    }
    return own | changes


class FakeFleet:
    """The nodes of a ``FakeMaster``, as converge speaks to them; it satisfies ``Fleet``.

    Each call goes to a method of the master, which tests override or replace.
    """

    def __init__(self, master: FakeMaster) -> None:
        self._master = master

    def links(
        self, nodes: Sequence[str], presumed_dead: Any = None, *, is_urgent: Urgent = nothing_urgent
    ) -> JobResult:
        """The link reports of those nodes that answer."""
        found = self._master.links(list(nodes))
        return JobResult(
            returned=found, unanswered={node: self._master.question for node in nodes if node not in found}
        )

    def apply(
        self,
        nodes: Sequence[str],
        not_awaited: Collection[str],
        *,
        retry_rolled_back: bool,
        impatient_of: Collection[str] = (),
        is_urgent: Urgent = nothing_urgent,
    ) -> JobResult:
        """A push, which the master records."""
        self._master.impatient_of = set(impatient_of)
        self._master.retried_rolled_back = retry_rolled_back
        self._master.not_awaited = set(not_awaited)
        return self._master.push(list(nodes))

    def late_returns(self, unanswered: Mapping[str, str]) -> JobResult:
        """What nodes returned to the job that they left unanswered at first."""
        return JobResult(returned={node: self._master.late[node] for node in unanswered if node in self._master.late})

    def enrol(self, nodes: Sequence[str]) -> None:
        """Recorded."""
        self._master.enrolled.append(list(nodes))

    def renew_keys(self, nodes: Sequence[str]) -> None:
        """Tell the nodes to make keys."""
        self._master.renew_keys(list(nodes))


class FakeMaster:
    """A master, its policy, and nodes that answer pushes unless they are *off*."""

    def __init__(self, **opts: Any) -> None:
        self.cache = MemoryCache()
        self.ledger = Ledger(self.cache)  # type: ignore[arg-type]
        # Masters whose meshes have PSKs are given a real folder.
        self.opts: dict[str, Any] = {"pki_dir": "/nonexistent", **opts}
        self.policy: Any = {
            "wg0": {
                "network": "10.0.0.0/16",
                "nodes": {"r1": {"role": "relay", "endpoint": "203.0.113.1"}, "a": {}, "b": {}},
            }
        }
        self.mine = {node: mine(node) for node in ("r1", "a", "b")}
        self.off: set[str] = set()
        """Nodes that answer neither pushes nor questions."""
        self.deleted: set[str] = set()
        """Nodes whose Salt keys are deleted."""
        self.pushes: list[list[str]] = []
        self.not_awaited: set[str] = set()
        """Nodes for which the last push did not wait."""
        self.impatient_of: set[str] = set()
        """Nodes for which it did not wait since they had kept earlier runs waiting."""
        self.late: dict[str, Any] = {}
        """What nodes return to the job that they left unanswered at first."""
        self.question = "q"
        """The id of the job that asks for links."""
        self.enrolled: list[list[str]] = []
        self.announced: list[MeshReport] = []
        self.retried_rolled_back = True
        """Whether nodes were told in the last push to apply even a view that they had rolled back."""
        self.now = 1_000.0
        self.env = Environment(
            ledger=self.ledger,
            read_inventory=lambda: self.inventory(),
            forget_facts=lambda node: self.forget_facts(node),
            secrets=functools.partial(PskSecrets.of, self.opts),
            fleet=FakeFleet(self),
            announce=self.announced.append,
            watch_keys=lambda accepted: lambda: not accepted.items() <= self.inventory().accepted.items(),
            clock=lambda: self.now,
        )

    # -- what tests override ----------------------------------------------------------------------------

    def inventory(self) -> Inventory:
        """What the master reads. A copy: what the ledger keeps of the policy is not what the test changes next."""
        accepted = {node: f"key of {node}" for node in self.mine if node not in self.deleted}
        return Inventory(policy=copy.deepcopy(self.policy), accepted=accepted, mine=dict(self.mine))

    def forget_facts(self, node: str) -> None:
        """The mine has no facts of *node* any more."""
        del self.mine[node]

    def links(self, nodes: list[str]) -> dict[str, Any]:
        """What ``wgmesh.links`` returns; by default no node answers."""
        return {}

    def push(self, nodes: list[str]) -> JobResult:
        """Have *nodes* apply what is published."""
        self.pushes.append(list(nodes))
        returned = {node: self.applied(node) for node in nodes if node not in self.off}
        return JobResult(returned=returned, unanswered={node: "1" for node in nodes if node in self.off})

    def applied(self, node: str) -> Any:
        """What *node* returns when it has applied what is published now."""
        return {mesh: {"digest": view["digest"]} for mesh, view in self.ledger.assignments(node).items()}

    def renew_keys(self, nodes: list[str]) -> None:
        """Tell *nodes* to make another key; by default they don't."""

    # -- runs -------------------------------------------------------------------------------------------

    def run_all(self, *, interactive: bool = True, **words: str | Collection[str]) -> dict[str, MeshReport]:
        """One run of converge; mesh → its report. *words* are fields of the request, each one text or several."""
        fields = {kind: frozenset({word} if isinstance(word, str) else word) for kind, word in words.items()}
        reports = converge(self.env, ConvergeRequest(**fields), interactive=interactive)
        return {report.mesh: report for report in reports}

    def run(self, **words: str | Collection[str]) -> MeshReport:
        """One run; the report of wg0."""
        return self.run_all(**words)["wg0"]

    def drafts(self) -> list[Draft]:
        """What a run would publish now."""
        snapshot = mesh_records.read_snapshot(self.ledger)
        found = effective_inventory(snapshot, self.inventory())
        secrets = functools.partial(PskSecrets.of, self.opts)
        return draft(DraftInput(snapshot=snapshot, inventory=found, secrets=secrets, now=self.now))

    # -- what is published ------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """The published plan of wg0."""
        return published(self.ledger, "wg0").plan

    def members(self, mesh: str = "wg0") -> set[str]:
        """The nodes that have a view."""
        head = self.ledger.head(mesh)
        return set(head.digests) - set(head.without_view)

    def peers(self, node: str) -> set[str]:
        """The neighbours in the view of *node*."""
        return {p["node"] for i in self.ledger.assignments(node)["wg0"]["interfaces"] for p in i["peers"]}

    def relays_of_leaves(self) -> dict[str, tuple[str, ...]]:
        """Leaf → its relays in the published plan."""
        return {node: member.relays for node, member in self.plan().members.items() if member.relays}


def link_reports(links: Mapping[str, tuple[str, LinkState]], *, carrying: Collection[str] = ()) -> dict[str, Any]:
    """What ``wgmesh.links`` returns: neighbour → interface and state; *carrying* are up but in hold-down."""
    found = {
        n: LinkStatus(neighbour=n, interface=interface, state=state, since=1.0, session_up=n in carrying)
        for n, (interface, state) in links.items()
    }
    return {"wg0": LinkReport(mesh="wg0", from_watcher=True, links=found).as_dict()}


def reachable_by_commands(master: FakeMaster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator's commands, which take Salt's options, find *master* and its time."""
    monkeypatch.setattr(Ledger, "of", lambda _opts: master.ledger)
    monkeypatch.setattr(inventory, "read_inventory", lambda _opts: master.inventory())
    monkeypatch.setattr(inventory, "accepted_keys", lambda _opts: master.inventory().accepted)
    monkeypatch.setattr(inventory, "raw_policy", lambda _opts: master.policy)
    monkeypatch.setattr("time.time", lambda: master.now)
