"""Links without a node: sessions whose state a test sets, and the verdict on them at the times that it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from saltext_wgmesh.core.liveness import bfd
from saltext_wgmesh.core.liveness.link_report import LinkState
from saltext_wgmesh.core.model.view import Interface, Kind, View
from saltext_wgmesh.minion.watcher.link import MonitoredLink
from saltext_wgmesh.minion.watcher.link_verdict import LinkVerdict
from saltext_wgmesh.minion.watcher.mesh import MeshMonitor
from tests import nodeviews
from tests.unit.harness.fakehost import FakeHost, Kernel

EPOCH = 1_700_000_000.0
"""The wall clock when the monotonic clock shows 0."""


def monitored_link(number: int, kind: Kind, *, is_relay: bool, grace_until: float = 0.0) -> MonitoredLink:
    """The link to node *number*, alone on its interface; its session is down, and its state is not known yet."""
    peer = nodeviews.peer(number)
    return MonitoredLink(
        peer=peer,
        interface=Interface(name=f"wg0-{number}", kind=kind, listen_port=0, peers=(peer,)),
        session=bfd.Session(discriminator=number, interval=100_000, multiplier=3),
        state=LinkState.NEW,
        since=EPOCH,
        grace_until=grace_until,
        is_relay=is_relay,
    )


def uplink(number: int, **options: float) -> MonitoredLink:
    """A leaf's link to relay *number*."""
    return monitored_link(number, Kind.UPLINK, is_relay=True, **options)


def trunk(number: int) -> MonitoredLink:
    """A relay's link to relay *number*."""
    return monitored_link(number, Kind.TRUNK, is_relay=True)


def access(number: int) -> MonitoredLink:
    """A relay's link to leaf *number*."""
    return monitored_link(number, Kind.ACCESS, is_relay=False)


@dataclass
class Links:
    """Some links and the verdict on them."""

    links: dict[str, MonitoredLink]
    verdict: LinkVerdict
    whys: dict[str, str] = field(default_factory=dict)
    """Neighbour → why its link took its present state."""

    @classmethod
    def of(cls, *links: MonitoredLink, drained: frozenset[str] = frozenset()) -> Links:
        """The links of mesh wg0."""
        listed = {link.name: link for link in links}
        return cls(links=listed, verdict=LinkVerdict(mesh="wg0", links=listed, drained_relays=drained))

    def sessions(self, now: float, *up: str) -> None:
        """At second *now* the sessions to *up* are up, and all others have timed out; the verdict follows."""
        set_sessions(self.links, up)
        self.evaluate(now)

    def evaluate(self, now: float) -> None:
        """The verdict on all links at second *now*."""
        for name, link in self.links.items():
            why = self.verdict.evaluate(link, now, EPOCH + now)
            if why is not None:
                self.whys[name] = why

    def states(self) -> dict[str, LinkState]:
        """Neighbour → state."""
        return states(self.links)

    def probes(self, now: float) -> list[tuple[str, str]]:
        """The probes to send at second *now*: through which relay, to which relay."""
        return [(link.name, target.name) for link, target in self.verdict.probes(now)]

    def neighbour_holds_down(self, name: str) -> None:
        """The neighbour holds the session down on purpose, and has said so."""
        session = self.links[name].session
        session.state, session.remote_state = bfd.BfdState.DOWN, bfd.BfdState.ADMIN_DOWN
        session.diagnostic = bfd.Diagnostic.NEIGHBOUR_DOWN


def set_sessions(links: Mapping[str, MonitoredLink], up: tuple[str, ...]) -> None:
    """The sessions to *up* are up, and all others have timed out."""
    for name, link in links.items():
        link.session.state = bfd.BfdState.UP if name in up else bfd.BfdState.DOWN
        link.session.diagnostic = bfd.Diagnostic.NONE if name in up else bfd.Diagnostic.TIME_EXPIRED


def states(links: Mapping[str, MonitoredLink]) -> dict[str, LinkState]:
    """Neighbour → state."""
    return {name: link.state for name, link in links.items()}


def mesh_monitor(folder: Path, view: View) -> MeshMonitor:
    """The monitor of *view* on a node that has no device yet."""
    return MeshMonitor(FakeHost.below(folder, Kernel()), view)


@dataclass
class FinishedProcess:
    """A process that has ended."""

    command: tuple[str, ...]

    def poll(self) -> int | None:
        return 0

    def kill(self) -> None: ...

    def wait(self, timeout: float | None = None) -> int:
        return 0


@dataclass
class RunningProcess(FinishedProcess):
    """A process that runs until it is killed."""

    is_killed: bool = False

    def poll(self) -> int | None:
        return -9 if self.is_killed else None

    def kill(self) -> None:
        self.is_killed = True
