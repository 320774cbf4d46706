"""A mesh on a lab's fleet: apply it, and compare what it does with the plan."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from . import planned
from .expectation import LanHost, faults, targets
from .lab import Lab
from .overlay import Loss, Stream, addresses_in, trips
from .wait import TimedOut, wait_until

CONSEQUENCE = "One or more requisite failed"
"""The start of Salt's comment on a state that failed only because another one did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """One mesh of the policy of the lab's master."""

    lab: Lab
    name: str
    networks: tuple[str, ...]
    members: tuple[str, ...]
    """The nodes that belong to the mesh at present."""
    lan: LanHost | None = None

    def overlay(self) -> dict[str, tuple[str, ...]]:
        """Return member → its overlay addresses, as the node has them."""
        return addresses_in(self.lab.underlay, self.members, self.networks)

    def apply(self) -> dict[str, Any]:
        """Apply the formula on the members, and return what ``state.apply wgmesh`` returned."""
        return self.lab.salt.salt(sorted(self.members), "state.apply", "wgmesh", timeout=240)

    def settle(self, deadline: float = 60) -> dict[str, Any]:
        """Wait until exactly the members are planned, each runs its view, and all links are up. Return the status."""
        told = planned.await_settled(self.lab.salt, self.name, set(self.members), deadline)
        planned.await_links(self.lab.salt, self.name, set(self.members))
        return told

    def faults(self, paths: planned.PathsByFamily | None = None, deadline: float = 15) -> list[str]:
        """Return the differences from the plan after *deadline* seconds, over all pairs; empty if there are none.

        *paths* is the plan. If it is None, each comparison reads the published one: the report of a link that is not up
        yet may have another one published meanwhile.
        """
        wanted = targets(self.overlay(), self.lan)
        found: list[str] = []

        def as_planned() -> bool:
            plan = planned.paths(self.lab.salt, self.name) if paths is None else paths
            found[:] = faults(trips(self.lab.underlay, wanted), plan, self.lan)
            return not found

        began = time.monotonic()
        with suppress(TimedOut):
            wait_until(as_planned, deadline, "all pairs to be as planned", every=0.5)
        # On a busy machine a watcher may be on its way back from a false alarm.
        print(f"paths: {len(found)} not as planned after {time.monotonic() - began:.1f} s", flush=True)
        return found

    def links(self) -> dict[str, dict[str, int]]:
        """Return member → interface → ifindex."""
        return {name: self.lab.underlay[name].links() for name in self.members}

    @contextmanager
    def streams(self, pairs: Mapping[str, str], rate: float = 100) -> Iterator[list[Loss]]:
        """Run streams from each source to all overlay addresses of its target. The list is filled at the end."""
        overlay = self.overlay()
        losses: list[Loss] = []
        running = []
        with ExitStack() as stack:
            for source, target in pairs.items():
                # A LAN host has no address of the mesh, and here IPv4 only.
                addresses = [a for a in overlay[target] if source in self.members or ":" not in a]
                running.append(stack.enter_context(Stream(self.lab.underlay[source], addresses, rate=rate)))
            yield losses
        losses += [loss for stream in running for loss in stream.losses]


def failures(answers: Mapping[str, Any], minions: Iterable[str]) -> list[str]:
    """Return one line for each failed state and each minion without an answer, by minion."""
    lines = []
    for name in minions:
        answer = answers.get(name)
        if not isinstance(answer, Mapping):
            said = "; ".join(map(str, answer)) if isinstance(answer, list) else answer
            lines.append(f"{name}: {'no answer' if answer is None else said}")
            continue
        broken = [(key, state["comment"]) for key, state in answer.items() if state["result"] is False]
        causes = [(key, said) for key, said in broken if not said.startswith(CONSEQUENCE)]
        lines += [f"{name}: {key.split('_|-')[1]}: {said.strip()}" for key, said in sorted(causes or broken)]
    return lines


def changes(answers: Mapping[str, Any]) -> list[str]:
    """Return ``minion: state: changes`` for each state with changes, sorted."""
    return sorted(
        f"{name}: {key.split('_|-')[1]}: {json.dumps(state['changes'])}"
        for name, states in answers.items()
        for key, state in states.items()
        if state["changes"]
    )


def losing(losses: Iterable[Loss]) -> list[Loss]:
    """Return the streams that lost packets. AssertionError if one was too short to judge."""
    listed = list(losses)
    assert listed
    assert all(loss.sent > 50 for loss in listed), listed
    return [loss for loss in listed if loss.lost]
