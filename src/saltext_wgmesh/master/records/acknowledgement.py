"""Acknowledgements: the answers of nodes to pushes, and what follows from them for the next push."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.core.model.stored_time import is_plausible, plausible
from saltext_wgmesh.master.records.conduct import GOOD_CONDUCT, Conduct
from saltext_wgmesh.master.records.push_answer import PushAnswer
from saltext_wgmesh.master.records.silence import Silence

RETRY_AFTER = 60.0
"""Seconds before a node that left a push unanswered is pushed to again. The pause doubles each time."""
MAX_RETRY_AFTER = 300.0
GIVEN_UP_AFTER = 2
"""Unanswered pushes after which a transition no longer waits for the node."""
HOLD_LIMIT = 3600.0
"""Seconds for which the answers of one node may hold back changes of one policy from others."""

Digests = Mapping[str, str]
"""Mesh → digest of an assignment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingPush:
    """The last push to a node, while the node has not acknowledged all of it."""

    digests: Digests
    """The assignments that were pushed."""
    tries: int
    """How often exactly that was pushed."""
    retry_at: float
    """Seconds since the epoch; an automatic push of the same digests waits until then."""
    job: str = ""
    """The id of the job that the node may still answer. Empty: it has answered."""
    error: str | None = None
    """The node's answer, if it is no acknowledgement. None: it has not answered."""
    rolled_back: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Mesh → why the node restored the view that it had before."""
    only_tests: bool = False
    """Whether the node changed nothing since its minion's configuration has ``test: True``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """The time in which the answers of a node may hold back a change from other nodes."""

    change: str
    """Fingerprint of the mesh's policy, which no node can change."""
    since: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """The acknowledgements of one node."""

    digests: Digests = field(default_factory=lambda: MappingProxyType({}))
    """Mesh → digest of the assignment that the node said it has applied."""
    at: float = 0.0
    """When the node was last pushed to or answered late, in seconds since the epoch."""
    pending: PendingPush | None = None
    """None: the node has acknowledged all that it was pushed last."""
    holds: Mapping[str, Hold] = field(default_factory=lambda: MappingProxyType({}))
    """Mesh → since when the node has held back the present change, even if it no longer does."""
    conduct: Conduct = GOOD_CONDUCT
    """How often the node cost all others time or applies."""
    silence: Silence | None = None
    """None: the node has answered the last question or push, or was asked nothing."""

    @property
    def awaits_answer(self) -> bool:
        """Whether the node may still answer the last push."""
        return self.pending is not None and bool(self.pending.job)

    @property
    def has_given_up(self) -> bool:
        """Whether a transition need not wait for the node: it answered with an error, or left two pushes unanswered."""
        return self.pending is not None and (self.pending.error is not None or self.pending.tries >= GIVEN_UP_AFTER)

    def missing(self, wanted: Digests) -> set[str]:
        """The meshes of *wanted* of which the node has not acknowledged that digest."""
        return {mesh for mesh, digest in wanted.items() if self.digests.get(mesh) != digest}

    def covers(self, wanted: Digests) -> bool:
        """Whether the node has acknowledged all of *wanted*."""
        return not self.missing(wanted)

    def refused(self, wanted: Digests) -> str:
        """The error with which the node answered a push of exactly *wanted*; empty if there was none.

        A node that only tests has not tried to apply anything.
        """
        pending = self.pending
        if pending and pending.only_tests:
            return ""
        return (pending.error or "") if pending and dict(pending.digests) == dict(wanted) else ""

    def rolled_back(self, wanted: Digests) -> dict[str, str]:
        """Mesh → why the node rolled back just the view that *wanted* names there."""
        pending = self.pending
        if pending is None:
            return {}
        reasons = {mesh: why for mesh, why in pending.rolled_back.items() if mesh in wanted}
        return {mesh: why for mesh, why in reasons.items() if pending.digests.get(mesh) == wanted[mesh]}

    def is_pending(self, wanted: Digests) -> bool:
        """Whether the last push was of exactly *wanted* and is not acknowledged."""
        return self.pending is not None and dict(self.pending.digests) == dict(wanted)

    def is_due(self, wanted: Digests, now: float) -> bool:
        """Whether an unacknowledged *wanted* is to be pushed at *now*: at once if it is new, else after the pause.

        A pause that is longer than any after that many tries was written while the clock was ahead, and is over.
        """
        if self.pending is None or not self.is_pending(wanted):
            return True
        return not 0 < self.pending.retry_at - now <= _pause(self.pending.tries)

    def holding(self, mesh: str, change: str, now: float) -> Ack:
        """This record with a hold of *change* in *mesh* that began at *now*, unless there is one already.

        A hold that began at no plausible time begins now.
        """
        known = self.holds.get(mesh)
        if known and known.change == change and is_plausible(known.since, now):
            return self
        return replace(self, holds={**self.holds, mesh: Hold(change=change, since=now)})

    def may_hold(self, mesh: str, change: str, now: float) -> bool:
        """Whether the node may hold back *change* at *now*: for HOLD_LIMIT seconds, however often it refuses."""
        known = self.holds.get(mesh)
        return known is None or known.change != change or now - plausible(known.since, now) < HOLD_LIMIT

    def after(self, answer: PushAnswer | None, pushed: Digests, now: float, job: str = "") -> Ack:
        """This record after the node's *answer* to a push of *pushed*.

        *answer* is None if nothing came, and then the node may still answer *job*.
        """
        parts = {} if answer is None else {mesh: part for mesh, part in answer.meshes.items() if mesh in pushed}
        digests = {**self.digests, **{mesh: part.digest for mesh, part in parts.items() if part.digest is not None}}
        silence = self.silence if answer is None else None
        answered = replace(self, digests=digests, at=now, pending=None, silence=silence)
        if answered.covers(pushed):
            return answered
        tries = self.pending.tries + 1 if self.pending and self.is_pending(pushed) else 1
        pending = PendingPush(
            digests=dict(pushed),
            tries=tries,
            retry_at=now + _pause(tries),
            job=job,
            error=None if answer is None else answer.error_in(pushed),
            rolled_back={m: str(part.error) for m, part in sorted(parts.items()) if part.rolled_back},
            only_tests=any(part.only_tests for part in parts.values()),
        )
        return replace(answered, pending=pending)

    def settled(self, wanted: Digests) -> Ack:
        """This record without its pending push, if the node had acknowledged *wanted* before that push.

        The plan is again the one that the node ran. If the push in between was left unanswered, the node may have
        applied it since: then only what both plans have in common still counts as acknowledged.
        """
        if self.pending is None or not self.covers(wanted):
            return self
        pushed = self.pending.digests if self.awaits_answer else self.digests
        certain = {mesh: digest for mesh, digest in self.digests.items() if pushed.get(mesh) == digest}
        return replace(self, digests=certain, pending=None)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the ledger; ``from_dict`` is the inverse."""
        pending = self.pending
        return {
            "digests": dict(self.digests),
            "at": self.at,
            "pending": pending
            and {
                "digests": dict(pending.digests),
                "tries": pending.tries,
                "retry_at": pending.retry_at,
                "job": pending.job,
                "error": pending.error,
                "rolled_back": dict(pending.rolled_back),
                **({"only_tests": True} if pending.only_tests else {}),
            },
            **({"holds": {mesh: [hold.change, hold.since] for mesh, hold in self.holds.items()}} if self.holds else {}),
            **({"conduct": self.conduct.as_dict()} if self.conduct != GOOD_CONDUCT else {}),
            **({"silence": self.silence.as_dict()} if self.silence else {}),
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Ack:
        """The record that ``as_dict`` wrote; an empty mapping gives that of a node which was never pushed to."""
        if not raw:
            return NO_ACK
        pending = raw["pending"]
        return cls(
            digests=raw["digests"],
            at=raw["at"],
            pending=PendingPush(
                digests=pending["digests"],
                tries=pending["tries"],
                retry_at=pending["retry_at"],
                job=pending["job"],
                error=pending["error"],
                rolled_back=pending["rolled_back"],
                # Earlier versions did not write it.
                only_tests=pending.get("only_tests", False),
            )
            if pending
            else None,
            # Earlier versions did not write it.
            holds={mesh: Hold(change=change, since=since) for mesh, (change, since) in raw.get("holds", {}).items()},
            conduct=Conduct.from_dict(raw.get("conduct", {})),
            silence=Silence.from_dict(raw["silence"]) if raw.get("silence") else None,
        )


NO_ACK = Ack()
"""The record of a node that was never pushed to."""


def _pause(tries: int) -> float:
    """Seconds from that many unanswered pushes to the next one."""
    return float(min(RETRY_AFTER * 2 ** (min(tries, 16) - 1), MAX_RETRY_AFTER))
