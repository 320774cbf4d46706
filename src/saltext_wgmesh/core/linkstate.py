"""How a node's links are, as its watcher tells it: one value that the file, the beacon and a job's return all carry."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.core.errors import ViewError

SCHEMA = 1
MOST = 1e11
"""Of all numbers in a report: seconds since the epoch for some thousand years."""


class LinkState(enum.Enum):
    """What a node can say of the link to a neighbour."""

    UP = "up"
    """Packets go both ways."""
    DOWN = "down"
    """They don't, in at least one direction."""
    MUTE = "mute"
    """The neighbour answers, but what is sent through it does not arrive."""
    NEW = "new"
    """Not known yet: the link was made just now."""
    ADMIN_DOWN = "admin-down"
    """It rests: one end holds it down on purpose, for a change of its own. Nothing is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One link, named by the neighbour."""

    neighbour: str
    interface: str
    state: LinkState
    """As it is believed, damping included: a link that flaps is DOWN until it has been good for *hold* seconds."""
    since: float
    """When it came to be so, in seconds since the epoch."""
    hold: float = 0.0
    """Seconds that it must be good before it is UP again; 0: it has not gone down lately."""
    interval: int = 0
    """Milliseconds between packets, as negotiated; 0: no session, the state comes from elsewhere."""
    heeded: bool = False
    """Whether this end lets it rest, and the other has heard it and sends nothing by it that has another way."""
    heard: bool = False
    """Whether it is DOWN for its past alone: packets go both ways, and it is used before those that are dead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkReport:
    """All links of one mesh of one node."""

    mesh: str
    watched: bool
    """True: told by the watcher. False: read from WireGuard's own counters, where no watcher runs."""
    links: Mapping[str, Link] = field(default_factory=lambda: MappingProxyType({}))
    """By neighbour, sorted."""

    @property
    def down(self) -> Mapping[str, float]:
        """The neighbours whose links carry nothing, as far as is known → since when. A new link is not used before it
        is up, and has no time; one that rests, or is heard, may well carry, and so went down last of all."""
        return {n: _down_since(link) for n, link in self.links.items() if link.state in _DOWN}

    @property
    def mute(self) -> frozenset[str]:
        """The neighbours that forward nothing."""
        return frozenset(n for n, link in self.links.items() if link.state is LinkState.MUTE)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; ``from_dict`` is the inverse."""
        return {
            "schema": SCHEMA,
            "mesh": self.mesh,
            "watched": self.watched,
            "links": {
                name: {
                    "interface": link.interface,
                    "state": link.state.value,
                    "since": link.since,
                    "hold": link.hold,
                    "interval": link.interval,
                    **({"heeded": True} if link.heeded else {}),
                    **({"heard": True} if link.heard else {}),
                }
                for name, link in sorted(self.links.items())
            },
        }

    @classmethod
    def from_dict(cls, raw: Any) -> LinkReport:
        """The report that ``as_dict`` wrote; ViewError for anything else. It may come from another node."""
        try:
            if raw["schema"] != SCHEMA:
                raise ValueError(f"schema {raw['schema']!r}")
            return cls(
                mesh=_text(raw["mesh"]),
                watched=raw["watched"] is True,
                links=MappingProxyType({_text(n): _link(n, value) for n, value in sorted(raw["links"].items())}),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ViewError(f"a report of links is damaged ({error!r})") from error


_DOWN = (LinkState.DOWN, LinkState.NEW, LinkState.ADMIN_DOWN)


def _down_since(link: Link) -> float:
    if link.state is LinkState.ADMIN_DOWN or link.heard:
        return float("inf")
    return link.since if link.state is LinkState.DOWN else 0.0


def _link(neighbour: str, raw: Mapping[str, Any]) -> Link:
    return Link(
        neighbour=neighbour,
        interface=_text(raw["interface"]),
        state=LinkState(raw["state"]),
        since=_number(raw["since"]),
        hold=_number(raw["hold"]),
        interval=int(_number(raw["interval"])),
        heeded=raw.get("heeded") is True,
        heard=raw.get("heard") is True,
    )


def _number(value: Any) -> float:
    number = float(value)
    if not 0 <= number <= MOST:
        raise ValueError(f"{value!r} is out of range")
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value
