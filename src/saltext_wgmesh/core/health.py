"""What nodes say of their links, and what was believed before → what counts as down. The clock is a parameter.

A node is down when most of those who should hear it say so; one neighbour's word alone is about their link only.
What is down counts at once. What returns must stay good for a while, longer each time it fails again (damping), and
then still rests: it is used by whom it is all there is, and nobody is moved back to it until a quiet period is over.
Of what nobody says anything, everything stays as it was believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from saltext_wgmesh.core.linkstate import LinkState

HOLD = 30.0
"""Seconds that something must be good before it counts as up again; doubles each time that it fails meanwhile."""
HOLD_CEILING = 600.0
QUIET = 600.0
"""Seconds without a failure after which a trouble is forgotten, and what rested may be used as before."""

UNTOLD = (LinkState.NEW, LinkState.ADMIN_DOWN)
"""States that say nothing of whether a link works: it was made just now, or rests."""

Words = Mapping[str, Mapping[str, LinkState]]
"""Node → neighbour → how it says that their link is. Only of nodes that were asked and answered."""
Pair = tuple[str, str]
"""Two neighbours, sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Something that is, or was lately, down."""

    since: float
    """When it went down last, in seconds since the epoch."""
    by: tuple[str, ...]
    """Who said so, sorted."""
    good_since: float | None = None
    """Since when it is heard again; None: it is not."""
    times: int = 1
    """How often it went down since it was last forgotten."""

    @property
    def hold(self) -> float:
        """Seconds that it must be good before it counts as up."""
        return float(min(HOLD * 2 ** (min(self.times, 16) - 1), HOLD_CEILING))

    def counts(self, now: float) -> bool:
        """Whether it is to be taken for down at *now*."""
        return self.good_since is None or now - self.good_since < self.hold

    def forgotten(self, now: float) -> bool:
        """Whether it has been good for so long that nothing of it matters any more."""
        return self.good_since is not None and now - self.good_since >= self.hold + QUIET


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """All troubles of one mesh, and what of it the planner must heed."""

    nodes: Mapping[str, Trouble] = field(default_factory=lambda: MappingProxyType({}))
    links: Mapping[Pair, Trouble] = field(default_factory=lambda: MappingProxyType({}))
    """Links whose two ends are not down themselves."""
    down: frozenset[str] = frozenset()
    """Nodes that count as down."""
    resting: frozenset[str] = frozenset()
    """Nodes that count as up again, to which nobody is moved yet."""
    cut: frozenset[Pair] = frozenset()
    """Links that count as down."""
    silent: frozenset[str] = frozenset()
    """Nodes that were asked and did not answer: they can't be told of new relays, so they keep the ones they have."""


def judge(
    before: Health, neighbours: Mapping[str, frozenset[str]], words: Words, asked: Iterable[str], now: float
) -> Health:
    """What to believe at *now*. *neighbours* are those of each node in the published plan; *asked* were asked now."""
    verdicts = {node: _verdict(node, others, words) for node, others in neighbours.items()}
    nodes = _troubles({n: t for n, t in before.nodes.items() if n in neighbours}, verdicts, now)
    down = frozenset(n for n, trouble in nodes.items() if trouble.counts(now))
    pairs = {(a, b) for a, others in neighbours.items() for b in others if a < b}
    # The plan gave up what was dead. Nobody can hear it any more, and so it is tried again when its hold is over.
    given_up = {p for p in before.links if p not in pairs and neighbours.keys() >= set(p)}
    heard = {pair: _heard(pair, words) for pair in pairs} | dict.fromkeys(given_up, (False, ()))
    heard = {pair: verdict for pair, verdict in heard.items() if not down & set(pair)}
    links = _troubles({p: t for p, t in before.links.items() if p in heard}, heard, now)
    silent = {node for node in asked if node in neighbours and node not in words}
    return Health(
        nodes=nodes,
        links=links,
        down=down,
        resting=frozenset(nodes) - down,
        cut=frozenset(p for p, trouble in links.items() if trouble.counts(now)),
        # Who was not asked this time is as silent as before.
        silent=frozenset(silent | {n for n in before.silent if n in neighbours and n not in words}),
    )


def rested(before: Health) -> Health:
    """*before*, with everything forgotten that is heard again: by the operator's word it may be used as before."""
    nodes = {n: t for n, t in before.nodes.items() if t.good_since is None}
    links = {p: t for p, t in before.links.items() if t.good_since is None}
    return replace(
        before,
        nodes=MappingProxyType(nodes),
        links=MappingProxyType(links),
        down=frozenset(nodes),
        resting=frozenset(),
        cut=frozenset(links),
    )


def gone(neighbours: Mapping[str, frozenset[str]], words: Words) -> frozenset[str]:
    """The nodes that are down by what those say that answered so far."""
    verdicts = {node: _verdict(node, others, words) for node, others in neighbours.items()}
    return frozenset(node for node, verdict in verdicts.items() if verdict and verdict[0])


_Verdict = tuple[bool, tuple[str, ...]] | None
"""Whether it is down, and who says so; None: nobody can tell."""


def _verdict(node: str, neighbours: frozenset[str], words: Words) -> _Verdict:
    """Down if most of those who answered and should hear it don't; that must be two, unless it has one neighbour."""
    said = {n: words[n][node] for n in neighbours if n in words and node in words[n]}
    told = {n: state for n, state in said.items() if state not in UNTOLD}
    against = tuple(sorted(n for n, state in told.items() if state is not LinkState.UP))
    if not told or len(told) < min(2, len(neighbours)):
        return None
    return len(against) * 2 > len(told), against


def _heard(pair: Pair, words: Words) -> _Verdict:
    """Down if either end says so."""
    said = {a: words[a][b] for a, b in (pair, pair[::-1]) if a in words and b in words[a]}
    told = {a: state for a, state in said.items() if state not in UNTOLD}
    against = tuple(sorted(a for a, state in told.items() if state is not LinkState.UP))
    return (bool(against), against) if told else None


def _troubles(before: Mapping[Any, Trouble], verdicts: Mapping[Any, _Verdict], now: float) -> Mapping[Any, Trouble]:
    found = {}
    for key in sorted({*before, *(k for k, v in verdicts.items() if v and v[0])}):
        trouble = _next(before.get(key), verdicts.get(key), now)
        if not trouble.forgotten(now):
            found[key] = trouble
    return MappingProxyType(found)


def _next(old: Trouble | None, verdict: _Verdict, now: float) -> Trouble:
    if old is None:
        assert verdict
        return Trouble(since=now, by=verdict[1])
    if verdict is None:
        return old
    down, by = verdict
    if not down:
        return old if old.good_since is not None else replace(old, good_since=now)
    if old.good_since is None:
        return replace(old, by=by)
    return Trouble(since=now, by=by, times=old.times + 1)


def as_dict(health: Health) -> dict[str, Any]:
    """Plain values for the ledger; ``from_dict`` is the inverse."""
    return {
        "nodes": {node: _trouble_as_dict(t) for node, t in health.nodes.items()},
        "links": [[*pair, _trouble_as_dict(t)] for pair, t in health.links.items()],
        "down": sorted(health.down),
        "resting": sorted(health.resting),
        "cut": [list(pair) for pair in sorted(health.cut)],
        "silent": sorted(health.silent),
    }


def from_dict(raw: Mapping[str, Any]) -> Health:
    """The health that ``as_dict`` wrote; an empty mapping gives that of a mesh without any trouble."""
    if not raw:
        return Health()
    return Health(
        nodes=MappingProxyType({node: _trouble(t) for node, t in raw["nodes"].items()}),
        links=MappingProxyType({(a, b): _trouble(t) for a, b, t in raw["links"]}),
        down=frozenset(raw["down"]),
        resting=frozenset(raw["resting"]),
        cut=frozenset((a, b) for a, b in raw["cut"]),
        silent=frozenset(raw["silent"]),
    )


def _trouble_as_dict(trouble: Trouble) -> dict[str, Any]:
    return {
        "since": trouble.since,
        "by": list(trouble.by),
        "good_since": trouble.good_since,
        "times": trouble.times,
    }


def _trouble(raw: Mapping[str, Any]) -> Trouble:
    return Trouble(since=raw["since"], by=tuple(raw["by"]), good_since=raw["good_since"], times=raw["times"])
