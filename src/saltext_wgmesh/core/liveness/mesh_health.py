"""The health of a mesh: which nodes and links count as down, from the link reports of all nodes and the health before.

A node is down if most of its witnesses say so: the neighbours that have an accepted key and are not down themselves. A
neighbour that has not answered is a witness all the same, so that a few fast answers decide nothing. A neighbour that
answers nothing for long is mute and no witness, so that a site which dies whole is found. A node is up again if at
least half of its witnesses say so. One neighbour of several is evidence about their common link only. A node or link
that goes down counts as down at once.

A node or link that recovers stays *down* until it has been up for the hold-down time, which doubles with each flap. It
then stays *recovering* for WAIT_TO_RESTORE seconds: leaves that still use it keep using it, and a leaf without any
other relay may use it. No other leaf is moved to it. This avoids moving traffic twice when a relay flaps.

Without a report about a node or link, its health does not change. The clock is a parameter.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.core.liveness.link_report import LinkState
from saltext_wgmesh.core.model.pairs import NodePair
from saltext_wgmesh.core.model.stored_time import plausible

HOLD_DOWN = 30.0
"""Seconds that a node or link must be up before it counts as up again; doubles with each flap."""
HOLD_DOWN_CEILING = 600.0
"""Seconds: the longest hold-down time."""
WAIT_TO_RESTORE = 600.0
"""Seconds without a failure after which an outage is forgotten, and the node or link is used as before (G.8031)."""

INCONCLUSIVE = (LinkState.NEW, LinkState.ADMIN_DOWN)
"""States that are no evidence of whether a link works: it is new, or held down on purpose."""

LinkStates = Mapping[str, Mapping[str, LinkState]]
"""Node → neighbour → the state of their link as the node reports it; only of nodes that answered."""
Neighbours = Mapping[str, frozenset[str]]
"""Node → the nodes that it has a link to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """The outage of a node or link that is down, or was lately."""

    since: float
    """When it went down last, in seconds since the epoch."""
    reporters: tuple[str, ...]
    """The nodes that reported it as down, sorted."""
    up_since: float | None = None
    """Since when it is up again, in seconds since the epoch; None: it is not."""
    flaps: int = 1
    """How often it went down since the last time that it was forgotten."""

    @property
    def hold_down(self) -> float:
        """Seconds that it must be up before it counts as up."""
        # The exponent is limited, since a float has no room for 2 to the power of thousands of flaps.
        return float(min(HOLD_DOWN * 2 ** (min(self.flaps, 16) - 1), HOLD_DOWN_CEILING))

    def is_down(self, now: float) -> bool:
        """Return whether it counts as down at *now*."""
        return self.up_since is None or now - self.up_since < self.hold_down

    def expired(self, now: float) -> bool:
        """Return whether it has been up for so long that the outage is forgotten."""
        return self.up_since is not None and now - self.up_since >= self.hold_down + WAIT_TO_RESTORE


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """All outages of one mesh, and what the planner derives from them."""

    nodes: Mapping[str, Outage] = field(default_factory=lambda: MappingProxyType({}))
    links: Mapping[NodePair, Outage] = field(default_factory=lambda: MappingProxyType({}))
    """Outages of links between two nodes that are not down themselves."""
    down_nodes: frozenset[str] = frozenset()
    """Nodes that count as down."""
    recovering: frozenset[str] = frozenset()
    """Nodes that count as up again, to which no leaf is moved yet."""
    down_links: frozenset[NodePair] = frozenset()
    """Links that count as down."""
    unresponsive: frozenset[str] = frozenset()
    """Nodes that were asked and did not answer. They can't be told of new relays, so they keep their relays."""


def update(
    before: Health,
    neighbours: Neighbours,
    reports: LinkStates,
    asked: Iterable[str],
    now: float,
    accepted: Container[str] | None = None,
    mute: Collection[str] = (),
) -> Health:
    """Return the health at *now*.

    *neighbours* are those of each node in the published plan; *asked* are the nodes that were asked for their reports.
    *accepted* are the nodes with an accepted key; None: all have one. *mute* nodes have answered nothing for long.
    """
    before = _with_plausible_times(before, now)
    witnesses = _witnesses(neighbours, accepted)
    verdicts = _node_verdicts(before, witnesses, reports, frozenset(mute).difference(reports))
    nodes = _outages({n: outage for n, outage in before.nodes.items() if n in neighbours}, verdicts, now)
    down = frozenset(n for n, outage in nodes.items() if outage.is_down(now))

    pairs = {(a, b) for a, others in neighbours.items() for b in others if a < b}
    # The plan gave up links that were down. No node reports them any longer, so each counts as up from now on and is
    # used again after its hold-down time.
    given_up = {p for p in before.links if p not in pairs and neighbours.keys() >= set(p)}
    link_verdicts = {pair: _link_verdict(pair, reports) for pair in pairs} | dict.fromkeys(given_up, (False, ()))
    # A link of a node that is down says nothing beyond the node's own outage.
    link_verdicts = {pair: verdict for pair, verdict in link_verdicts.items() if not down & set(pair)}
    links = _outages({p: outage for p, outage in before.links.items() if p in link_verdicts}, link_verdicts, now)

    unanswered = {node for node in asked if node in neighbours and node not in reports}
    # A node that was not asked this time is as unresponsive as before.
    still_unresponsive = {n for n in before.unresponsive if n in neighbours and n not in reports}
    return Health(
        nodes=nodes,
        links=links,
        down_nodes=down,
        recovering=frozenset(nodes) - down,
        down_links=frozenset(p for p, outage in links.items() if outage.is_down(now)),
        unresponsive=frozenset(unanswered | still_unresponsive),
    )


def _with_plausible_times(before: Health, now: float) -> Health:
    """Return *before* with *now* in place of times that no right clock can have written.

    Left alone, an outage would last until the clock gets there, or end without its hold-down time.
    """

    def clamped(outage: Outage) -> Outage:
        up_since = None if outage.up_since is None else plausible(outage.up_since, now)
        return replace(outage, since=plausible(outage.since, now), up_since=up_since)

    return replace(
        before,
        nodes={node: clamped(outage) for node, outage in before.nodes.items()},
        links={pair: clamped(outage) for pair, outage in before.links.items()},
    )


def clear_recovered(before: Health) -> Health:
    """Return *before* without the outages that are over, so that these nodes and links are used as before.

    The operator asks for that, and then neither the hold-down time nor WAIT_TO_RESTORE has to pass.
    """
    nodes = {n: outage for n, outage in before.nodes.items() if outage.up_since is None}
    links = {p: outage for p, outage in before.links.items() if outage.up_since is None}
    return replace(
        before,
        nodes=MappingProxyType(nodes),
        links=MappingProxyType(links),
        down_nodes=frozenset(nodes),
        recovering=frozenset(),
        down_links=frozenset(links),
    )


def silent_nodes(health: Health) -> frozenset[str]:
    """Return the nodes that count as down, without those in hold-down: their neighbours hear these again."""
    heard = {node for node, outage in health.nodes.items() if outage.up_since is not None}
    return health.down_nodes - heard


def confirmed_down(
    before: Health,
    neighbours: Neighbours,
    reports: LinkStates,
    accepted: Container[str] | None = None,
    mute: Collection[str] = (),
) -> frozenset[str]:
    """Return the nodes that are down by the *reports* that have arrived so far, whatever the missing reports say.

    A *mute* node is taken for one that will not answer this time either.
    """
    silent = frozenset(mute).difference(reports)
    verdicts = _node_verdicts(before, _witnesses(neighbours, accepted), reports, silent)
    return frozenset(node for node, verdict in verdicts.items() if verdict and verdict[0])


_Verdict = tuple[bool, tuple[str, ...]] | None
"""Whether a node or link is down, and the nodes that report it as down; None: the reports do not decide it."""


def _witnesses(neighbours: Neighbours, accepted: Container[str] | None) -> Neighbours:
    """Return *neighbours* without the nodes that have no accepted key."""
    if accepted is None:
        return neighbours
    return {node: frozenset(n for n in others if n in accepted) for node, others in neighbours.items()}


def _node_verdicts(
    before: Health, witnesses: Neighbours, reports: LinkStates, mute: frozenset[str]
) -> dict[str, _Verdict]:
    """Return the verdict on each node that has witnesses.

    A node that is down or *mute* is no witness. Without one that is down the verdict on its neighbours may be another
    one, and so on.
    """

    def judge(node: str, down: Set[str]) -> _Verdict:
        everyone = witnesses[node]
        # The silence of a mute node itself is as good as a second witness.
        least = 1 if node in mute else min(2, len(everyone))
        left = everyone - mute - down
        verdict = _node_verdict(node, left, least, reports)
        return (True, ()) if verdict is None and node in mute and everyone and everyone <= down else verdict

    verdicts = {node: judge(node, frozenset()) for node in witnesses}
    # A node that was down before and of which nothing is decided now is still down.
    down = {node for node, verdict in verdicts.items() if (verdict[0] if verdict else node in before.down_nodes)}
    found = down
    while found:
        near = {n for node in found for n in witnesses[node] if n in witnesses and not _is_down(verdicts[n])}
        judged = {n: judge(n, down) for n in near}
        verdicts |= judged
        found = {n for n, verdict in judged.items() if _is_down(verdict)} - down
        down |= found
    return verdicts


def _is_down(verdict: _Verdict) -> bool:
    return verdict is not None and verdict[0]


def _node_verdict(node: str, witnesses: frozenset[str], least: int, reports: LinkStates) -> _Verdict:
    """Return down if most *witnesses*, and *least* of them, say so, and up if at least half of them do.

    One of them alone is believed only if there never was another one, or if the node itself is mute.
    """
    states = {n: reports[n][node] for n in witnesses if n in reports and node in reports[n]}
    against = tuple(sorted(n for n, s in states.items() if s not in (LinkState.UP, *INCONCLUSIVE)))
    if len(against) * 2 > len(witnesses) and len(against) >= least:
        return True, against
    is_up = bool(witnesses) and sum(state is LinkState.UP for state in states.values()) * 2 >= len(witnesses)
    return (False, against) if is_up else None


def _link_verdict(pair: NodePair, reports: LinkStates) -> _Verdict:
    """Return down if either end says so.

    While the link is new at one end there is no verdict. The other end may have called a node that did not know it yet:
    a node that returns to the mesh has all its links down until its neighbours have it as a peer again.
    """
    answered = {a: reports[a][b] for a, b in (pair, pair[::-1]) if a in reports and b in reports[a]}
    if LinkState.NEW in answered.values():
        return None
    conclusive = {a: state for a, state in answered.items() if state not in INCONCLUSIVE}
    against = tuple(sorted(a for a, state in conclusive.items() if state is not LinkState.UP))
    return (bool(against), against) if conclusive else None


def _outages(before: Mapping[Any, Outage], verdicts: Mapping[Any, _Verdict], now: float) -> Mapping[Any, Outage]:
    found = {}
    for key in sorted({*before, *(k for k, v in verdicts.items() if v and v[0])}):
        outage = _advance(before.get(key), verdicts.get(key), now)
        if not outage.expired(now):
            found[key] = outage
    return MappingProxyType(found)


def _advance(old: Outage | None, verdict: _Verdict, now: float) -> Outage:
    if old is None:
        assert verdict
        return Outage(since=now, reporters=verdict[1])
    if verdict is None:
        return old
    down, reporters = verdict
    if not down:
        return old if old.up_since is not None else replace(old, up_since=now)
    if old.up_since is None:
        return replace(old, reporters=reporters)
    return Outage(since=now, reporters=reporters, flaps=old.flaps + 1)


def health_as_dict(health: Health) -> dict[str, Any]:
    """Return plain values for the ledger; ``health_from_dict`` is the inverse."""
    return {
        "nodes": {node: _outage_as_dict(outage) for node, outage in health.nodes.items()},
        "links": [[*pair, _outage_as_dict(outage)] for pair, outage in health.links.items()],
        "down_nodes": sorted(health.down_nodes),
        "recovering": sorted(health.recovering),
        "down_links": [list(pair) for pair in sorted(health.down_links)],
        "unresponsive": sorted(health.unresponsive),
    }


def health_from_dict(raw: Mapping[str, Any]) -> Health:
    """Return the health that ``health_as_dict`` wrote; an empty mapping is a mesh without outages."""
    if not raw:
        return Health()
    return Health(
        nodes=MappingProxyType({node: _outage(outage) for node, outage in raw["nodes"].items()}),
        links=MappingProxyType({(a, b): _outage(outage) for a, b, outage in raw["links"]}),
        down_nodes=frozenset(raw["down_nodes"]),
        recovering=frozenset(raw["recovering"]),
        down_links=frozenset((a, b) for a, b in raw["down_links"]),
        unresponsive=frozenset(raw["unresponsive"]),
    )


def _outage_as_dict(outage: Outage) -> dict[str, Any]:
    return {
        "since": outage.since,
        "reporters": list(outage.reporters),
        "up_since": outage.up_since,
        "flaps": outage.flaps,
    }


def _outage(raw: Mapping[str, Any]) -> Outage:
    return Outage(since=raw["since"], reporters=tuple(raw["reporters"]), up_since=raw["up_since"], flaps=raw["flaps"])
