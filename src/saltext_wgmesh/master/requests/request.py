"""Requests for a converge: each as one caller makes it, and all of one run together."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from saltext_wgmesh.core.errors import WgmeshError

log = logging.getLogger(__name__)

MAX_VALUE_LENGTH = 255
"""Characters of a request's value. A minion id is the name of a file, which is no longer."""


class RequestKind(Enum):
    """The kinds of requests; the text below each says what the request's value is."""

    RUN = "run"
    """A run, and nothing else. No value."""
    HINT = "hint"
    """A minion id: the node may know of a link that is down, or up again."""
    SUSPECT = "suspect"
    """A minion id: such a link may lead to the node."""
    STARTED = "started"
    """A minion id: the minion may have started just now."""
    DRIFTED = "drifted"
    """A minion id: the node may no longer hold what it applied."""
    RETRY = "retry"
    """A minion id: the node gets a push, even if it left earlier ones unanswered."""
    CONTINUE_TRANSITION = "continue-transition"
    """The next step of a transition may be due. No value."""
    DRAIN = "drain"
    """A minion id: nothing may depend on the node from now on."""
    UNDRAIN = "undrain"
    """A minion id: other nodes may depend on the node again."""
    CONFIRM = "confirm"
    """A digest: the operator approves the loss that is held under it."""
    REBALANCE = "rebalance"
    """Nodes and links that recovered are used at once, without their hold-down. No value."""
    ROTATE_KEY = "rotate-key"
    """A minion id, or a glob over minion ids: these members get another key."""
    FORCE_ROTATION = "force-rotation"
    """The same, and these members do not wait for neighbours that have not acknowledged the other key."""
    ROTATE_PSK = "rotate-psk"
    """A mesh: its preshared keys are derived from another secret."""


FROM_EVENTS = frozenset(
    {
        RequestKind.HINT,
        RequestKind.SUSPECT,
        RequestKind.STARTED,
        RequestKind.DRIFTED,
        RequestKind.CONTINUE_TRANSITION,
    }
)
"""Kinds that no operator waits for. If a run fails, they stay queued until one succeeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, as it stands in a file of the queue. ``encode`` and ``decode`` are the only writer and reader."""

    kind: RequestKind = RequestKind.RUN
    value: str = ""
    """Empty if the kind has none."""

    def __post_init__(self) -> None:
        if len(self.value) > MAX_VALUE_LENGTH:
            raise WgmeshError(
                f"the value of the request {self.kind.value} has {len(self.value)} characters: "
                f"use at most {MAX_VALUE_LENGTH}"
            )

    def encode(self) -> str:
        """The text of the request's file."""
        return json.dumps({"kind": self.kind.value, "value": self.value})

    @classmethod
    def decode(cls, text: str) -> Request | None:
        """The request that ``encode`` wrote.

        Text that is not JSON, as a power failure leaves it, is a request for a run: the run finds by itself what
        the event reported. Returns None, and logs why, if the kind is unknown or the value too long.
        """
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError):
            return cls()
        try:
            kind, value = RequestKind(raw["kind"]), raw["value"]
            if not isinstance(value, str):
                raise TypeError(f"the value of the request {kind.value} is no text")
            return cls(kind=kind, value=value)
        except (LookupError, TypeError, ValueError, WgmeshError) as error:
            log.warning("wgmesh: dropped a queued request that cannot be used: %s", str(error)[:MAX_VALUE_LENGTH])
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvergeRequest:
    """All requests of one run. Names from events are only hints where to look: no node is judged by them."""

    EMPTY: ClassVar[ConvergeRequest]
    """A run without any request."""

    hints: frozenset[str] = frozenset()
    """Nodes that may know of a link that is down, or up again."""
    suspects: frozenset[str] = frozenset()
    """Nodes that those links may lead to."""
    started: frozenset[str] = frozenset()
    """Nodes whose minion may have started just now."""
    drifted: frozenset[str] = frozenset()
    """Nodes that may no longer hold what they applied."""
    retry: frozenset[str] = frozenset()
    """Nodes that get a push even if they left earlier pushes unanswered."""
    continue_transition: bool = False
    """Whether the next step of a transition may be due."""
    drain: frozenset[str] = frozenset()
    """Nodes that nothing may depend on from now on."""
    undrain: frozenset[str] = frozenset()
    """Nodes that others may depend on again."""
    confirm: frozenset[str] = frozenset()
    """Digests of held losses that the operator approves."""
    rebalance: bool = False
    """Whether nodes and links that recovered are used at once."""
    rotate: frozenset[str] = frozenset()
    """Minion ids and globs: these members get another key."""
    force_rotation: frozenset[str] = frozenset()
    """The same, without waiting for neighbours that have not acknowledged these keys."""
    rotate_psk: frozenset[str] = frozenset()
    """Meshes, not nodes: their preshared keys are derived from another secret."""

    @property
    def forces_run(self) -> bool:
        """Whether there is something to do even if nothing changed since the last run."""
        nodes = (self.started, self.drifted, self.retry, self.drain, self.undrain, self.rotate, self.force_rotation)
        return any((*nodes, self.confirm, self.rotate_psk, self.continue_transition, self.rebalance))

    @classmethod
    def of(cls, requests: Iterable[Request]) -> ConvergeRequest:
        """All *requests* as one."""
        values: dict[RequestKind, set[str]] = {kind: set() for kind in RequestKind}
        for request in requests:
            values[request.kind].add(request.value)
        return cls(
            hints=frozenset(values[RequestKind.HINT]),
            suspects=frozenset(values[RequestKind.SUSPECT]),
            started=frozenset(values[RequestKind.STARTED]),
            drifted=frozenset(values[RequestKind.DRIFTED]),
            retry=frozenset(values[RequestKind.RETRY]),
            continue_transition=bool(values[RequestKind.CONTINUE_TRANSITION]),
            drain=frozenset(values[RequestKind.DRAIN]),
            undrain=frozenset(values[RequestKind.UNDRAIN]),
            confirm=frozenset(values[RequestKind.CONFIRM]),
            rebalance=bool(values[RequestKind.REBALANCE]),
            rotate=frozenset(values[RequestKind.ROTATE_KEY]),
            force_rotation=frozenset(values[RequestKind.FORCE_ROTATION]),
            rotate_psk=frozenset(values[RequestKind.ROTATE_PSK]),
        )


ConvergeRequest.EMPTY = ConvergeRequest()
