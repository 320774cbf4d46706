"""The state of a node's links as its watcher reports it.

The watcher's file, the beacon and the return of a job all carry the same value.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.core.errors import ViewError

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
    """The obstacles to forwarding that a relay finds on its own host, in words."""

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

        Raises ViewError for anything else.
        """
        try:
            if raw["schema"] == _FORMER_SCHEMA:
                raw = _migrated(raw)
            if raw["schema"] != LINK_REPORT_SCHEMA:
                raise ValueError(f"schema {raw['schema']!r}")
            return cls(
                mesh=_text(raw["mesh"]),
                from_watcher=raw["from_watcher"] is True,
                links=MappingProxyType({_text(n): _link(n, value) for n, value in sorted(raw["links"].items())}),
                relay_faults=tuple(_printable(_text(fault)) for fault in raw.get("relay_faults", ())[:MAX_FAULTS]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ViewError(f"a report of links is damaged ({error!r})") from error


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


def _link(neighbour: str, raw: Mapping[str, Any]) -> LinkStatus:
    return LinkStatus(
        neighbour=neighbour,
        interface=_text(raw["interface"]),
        state=LinkState(raw["state"]),
        since=_number(raw["since"]),
        hold=_number(raw["hold"]),
        interval=int(_number(raw["interval"])),
        admin_down_acknowledged=raw.get("admin_down_acknowledged") is True,
        session_up=raw.get("session_up") is True,
    )


def _number(value: Any) -> float:
    number = float(value)
    if not 0 <= number <= MAX_NUMBER:
        raise ValueError(f"{value!r} is out of range")
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _printable(fault: str) -> str:
    """Return *fault*, cut to MAX_FAULT characters. A terminal shows it, so control characters become question marks."""
    return "".join(sign if sign.isprintable() else "?" for sign in fault[:MAX_FAULT])
