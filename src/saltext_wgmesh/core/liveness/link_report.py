"""The state of a node's links as its watcher reports it.

The watcher's file, the beacon and the return of a job all carry the same value.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.core.errors import ViewError
from saltext_wgmesh.core.model.untrusted import printable

LINK_REPORT_SCHEMA = 2
_FORMER_SCHEMA = 1
_FORMER_KEYS = {
    "watched": "from_watcher",
    "heard": "session_up",
    "mute": "blackhole",
}
"""Keys and states of the schema before → their names in this one. Nodes of a mesh are not upgraded at once."""
MAX_FAULTS = 10
"""Faults of a relay that are read of one report."""
MAX_FAULT = 500
"""Characters of one fault that are read."""
MAX_LINKS = 20_000
"""Links that are read of one report: more than a relay has in the largest fleet."""
MAX_NAME = 255
"""Characters of the name of a neighbour or mesh. A minion id is the name of a file, which is no longer."""
_MAX_WORD = 64
"""Characters of any other text, such as the name of an interface."""
MAX_NUMBER = 1e11
"""The largest number that a report may have: seconds since the epoch for some thousand years."""


class LinkState(enum.Enum):
    """The state of the link to a neighbour, as one node sees it."""

    UP = "up"
    """Packets arrive in both directions."""
    DOWN = "down"
    """Packets do not arrive in at least one direction."""
    BLACKHOLE = "blackhole"
    """The neighbour answers, but packets that are sent through it do not arrive."""
    NEW = "new"
    """The link was created just now, and its state is not known yet."""
    ADMIN_DOWN = "admin-down"
    """One end holds the link down on purpose while that end changes. The link itself has no fault."""


class LinkAvailability(enum.IntEnum):
    """How likely a link that routes must avoid still carries packets, from unlikely to likely."""

    NEVER_UP = 0
    """The link is new, or the report does not know it."""
    FAILED = 1
    """The link was up and went down."""
    HELD_DOWN = 2
    """The link is admin-down, or its session is up and the link is in hold-down only: it may well carry packets."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class DownLink:
    """A link that routes use only if no other link is up; the greatest of several is tried first."""

    availability: LinkAvailability
    since: float = 0.0
    """When a failed link went down, in seconds on any clock; 0 for any other link."""


NEVER_UP = DownLink(availability=LinkAvailability.NEVER_UP)
DownLinks = Mapping[str, DownLink]
"""Neighbour → its link, only of the links that are down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkStatus:
    """One link, named by the neighbour."""

    neighbour: str
    interface: str
    state: LinkState
    """The damped state: a link that flaps is DOWN until it has been up for *hold* seconds."""
    since: float
    """When the link came to this state, in seconds since the epoch."""
    hold: float = 0.0
    """Seconds that the link must be up before it counts as UP again; 0: it has not flapped lately."""
    interval: int = 0
    """Milliseconds between packets, as negotiated; 0: there is no BFD session, the state has another source."""
    admin_down_acknowledged: bool = False
    """Whether this end holds the link down, and the other end knows it and uses its other links."""
    session_up: bool = False
    """Whether the link is DOWN only since it is in hold-down: packets arrive in both directions."""

    @property
    def down_link(self) -> DownLink | None:
        """This link as one that routes must avoid; None: routes may use it."""
        if self.state not in _AVOIDED:
            return None
        if self.state is LinkState.ADMIN_DOWN or self.session_up:
            return DownLink(availability=LinkAvailability.HELD_DOWN)
        if self.state is LinkState.NEW:
            return NEVER_UP
        return DownLink(availability=LinkAvailability.FAILED, since=self.since)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values, without the name of the neighbour."""
        return {
            "interface": self.interface,
            "state": self.state.value,
            "since": self.since,
            "hold": self.hold,
            "interval": self.interval,
            **({"admin_down_acknowledged": True} if self.admin_down_acknowledged else {}),
            **({"session_up": True} if self.session_up else {}),
        }


_AVOIDED = (LinkState.DOWN, LinkState.NEW, LinkState.ADMIN_DOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkReport:
    """All links of one mesh of one node."""

    mesh: str
    from_watcher: bool
    """True: the watcher wrote the report. False: no watcher runs, and the report is made from WireGuard's counters."""
    links: Mapping[str, LinkStatus] = field(default_factory=lambda: MappingProxyType({}))
    """Keyed by neighbour, sorted."""
    relay_faults: tuple[str, ...] = ()
    """The obstacles that a node finds, in words: to forwarding, on a relay; to BFD, and relays that lose its probes, on
    any node."""

    @property
    def down(self) -> DownLinks:
        """The links that routes must avoid while another link is up.

        A new link is among them, since it is not used before it is up.
        """
        found = ((neighbour, link.down_link) for neighbour, link in self.links.items())
        return {neighbour: down for neighbour, down in found if down is not None}

    @property
    def blackholed(self) -> frozenset[str]:
        """The neighbours that are up and forward nothing."""
        return frozenset(n for n, link in self.links.items() if link.state is LinkState.BLACKHOLE)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values; ``from_dict`` is the inverse."""
        return {
            "schema": LINK_REPORT_SCHEMA,
            "mesh": self.mesh,
            "from_watcher": self.from_watcher,
            "links": {name: link.as_dict() for name, link in sorted(self.links.items())},
            **({"relay_faults": list(self.relay_faults)} if self.relay_faults else {}),
        }

    @classmethod
    def from_dict(cls, raw: Any) -> LinkReport:
        """Return the report that ``as_dict`` wrote, also on another node.

        Raises ViewError for anything else. The error repeats nothing of *raw*, which may be of any size.
        """
        try:
            if raw["schema"] == _FORMER_SCHEMA:
                raw = _migrated(raw)
            if raw["schema"] != LINK_REPORT_SCHEMA:
                raise ValueError("its schema is another one")
            if len(raw["links"]) > MAX_LINKS:
                raise ValueError(f"it has more than {MAX_LINKS} links")
            return cls(
                mesh=_text(raw["mesh"], MAX_NAME),
                from_watcher=raw["from_watcher"] is True,
                links=MappingProxyType({n: _link(n, value) for n, value in sorted(_named(raw["links"]))}),
                relay_faults=_faults(raw.get("relay_faults", ())),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise ViewError(f"a report of links is damaged ({type(error).__name__}: {error})") from error


def _migrated(raw: Mapping[str, Any]) -> dict[str, Any]:
    links = {neighbour: _renamed(link) for neighbour, link in raw["links"].items()}
    states = {neighbour: {"state": _FORMER_KEYS.get(link["state"], link["state"])} for neighbour, link in links.items()}
    return {
        **_renamed(raw),
        "schema": LINK_REPORT_SCHEMA,
        "links": {neighbour: {**link, **states[neighbour]} for neighbour, link in links.items()},
    }


def _renamed(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {_FORMER_KEYS.get(key, key): value for key, value in raw.items()}


def _named(links: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for neighbour, link in links.items():
        yield _text(neighbour, MAX_NAME), link


def _faults(raw: Any) -> tuple[str, ...]:
    faults = list(raw[:MAX_FAULTS])
    if not all(isinstance(fault, str) for fault in faults):
        raise TypeError("a fault is not text")
    return tuple(printable(fault, MAX_FAULT) for fault in faults)


def _link(neighbour: str, raw: Mapping[str, Any]) -> LinkStatus:
    return LinkStatus(
        neighbour=neighbour,
        interface=_text(raw["interface"], _MAX_WORD),
        state=LinkState(_text(raw["state"], _MAX_WORD)),
        since=_number(raw["since"]),
        hold=_number(raw["hold"]),
        interval=int(_number(raw["interval"])),
        admin_down_acknowledged=raw.get("admin_down_acknowledged") is True,
        session_up=raw.get("session_up") is True,
    )


def _number(value: Any) -> float:
    number = float(_text(value, _MAX_WORD) if isinstance(value, str) else value)
    if not 0 <= number <= MAX_NUMBER:
        raise ValueError("a number is out of range")
    return number


def _text(value: Any, limit: int) -> str:
    if not isinstance(value, str) or not value.isprintable() or len(value) > limit:
        raise TypeError(f"a name or a state is not text of at most {limit} printable characters")
    return value
