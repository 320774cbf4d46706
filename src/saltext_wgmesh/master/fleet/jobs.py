"""Jobs to nodes: one job to those concerned, which does not say what they are to do.

Every accepted minion can read the arguments of every job, so a job only says *apply* or *links*. Each node fetches its
own view as pillar, which is encrypted for that node alone. Returns are read from the master's job cache, where Salt
stores only returns that the node itself signed. Return events are not used: any accepted minion could forge them.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import salt.client
import salt.utils.args
from salt.config import DEFAULT_MASTER_OPTS

from saltext_wgmesh.core.errors import FleetError
from saltext_wgmesh.master.fleet.job_cache import returns

BATCH = 500
"""Minion ids in one job: a list target travels to every minion."""
JOB_POLL_INTERVAL = 0.02
"""Seconds between two reads of the job cache; longer where a read takes long."""
PRESUMED_DEAD_WAIT = 0.5
"""Seconds since the last answer after which nodes that are presumed dead are given up."""
MAX_PACKETS = 2**64
"""A counter of packets is smaller."""

Urgent = Callable[[], bool]
"""Whether something can't wait for the end of this run."""
PresumedDead = Callable[[Mapping[str, Any]], Collection[str]]
"""From what nodes returned to the nodes that are down according to these returns."""


def nothing_urgent() -> bool:
    """A run waits for its nodes as long as it may."""
    return False


def no_hint(_: Mapping[str, Any]) -> Collection[str]:
    """No node is presumed dead, whatever the others return."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitPolicy:
    """How long to wait for the returns of a job, in seconds."""

    total: float
    """From the first read to the last."""
    first_answer: float
    """Until the first return arrives. A late first return may only mean that the master is busy."""
    idle: float
    """Since the last return. Nodes that are missing then are given up, or asked whether the job still runs."""
    find_job: WaitPolicy | None = None
    """How to ask nodes that are missing with ``saltutil.find_job``; they are waited for while the job runs."""
    presumed_dead: PresumedDead = no_hint
    """If only these nodes are missing, the wait ends after PRESUMED_DEAD_WAIT seconds."""
    not_awaited: Collection[str] = ()
    """Nodes that are waited for only if they say within PRESUMED_DEAD_WAIT seconds that they are there."""
    impatient_of: Collection[str] = ()
    """Nodes that are not asked whether the job still runs, since they kept earlier runs waiting."""
    is_urgent: Urgent = nothing_urgent
    """If it is, the wait ends. It is asked at each look at the returns, so it must be cheap."""
    prompt: float = PRESUMED_DEAD_WAIT
    """An answer is prompt until so long after half of all others, and is not counted as a wait for its node."""


APPLY_TIMEOUT = 60.0
"""Seconds for which the master waits for nodes that say that they are still applying."""
MAX_QUERY_TIMEOUT = 15.0
"""Seconds. A long ``timeout``, for the operator's own commands, must not delay the reaction to a dead node."""


def query_wait(opts: Mapping[str, Any]) -> WaitPolicy:
    """How long to wait for the answers to a question, by the master's option ``timeout``, up to MAX_QUERY_TIMEOUT.

    Nodes that answer at all answer close together, so the wait since the last answer is shorter.
    """
    timeout = min(_seconds(opts, "timeout"), MAX_QUERY_TIMEOUT)
    return WaitPolicy(total=1.5 * timeout, first_answer=timeout, idle=timeout / 3)


def apply_wait(opts: Mapping[str, Any]) -> WaitPolicy:
    """How long to wait for an apply: as ``salt`` waits for a job, by ``timeout`` and ``gather_job_timeout``.

    Both are options of the master. A node with busy cores takes seconds to begin any job, whatever it is.
    """
    timeout, gather = _seconds(opts, "timeout"), _seconds(opts, "gather_job_timeout")
    find_job = WaitPolicy(total=gather, first_answer=gather, idle=gather)
    # Nodes with busy cores take a few seconds to begin a job.
    return WaitPolicy(total=APPLY_TIMEOUT, first_answer=timeout, idle=timeout, find_job=find_job, prompt=timeout)


def _seconds(opts: Mapping[str, Any], option: str) -> float:
    """The master's *option*, by Salt's default where its configuration does not have it."""
    return float(opts.get(option, DEFAULT_MASTER_OPTS[option]))


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """The returns that had arrived when the master stopped waiting."""

    returned: Mapping[str, Any] = field(default_factory=dict)
    """Node → its return."""
    unanswered: Mapping[str, str] = field(default_factory=dict)
    """Node without a return → the id of the job. Its return may still arrive."""
    waited: Mapping[str, float] = field(default_factory=dict)
    """Node → seconds for which the run waited for it, beyond a prompt answer, of those that were awaited."""
    is_interrupted: bool = False
    """Whether the wait ended because something was urgent."""


def run_apply(
    opts: dict[str, Any],
    nodes: Sequence[str],
    not_awaited: Collection[str] = (),
    *,
    impatient_of: Collection[str] = (),
    retry_rolled_back: bool = True,
    is_urgent: Urgent = nothing_urgent,
) -> JobResult:
    """Run ``wgmesh.apply`` on *nodes*, and return what they returned.

    *not_awaited* nodes are presumed dead: they are waited for only if they say within PRESUMED_DEAD_WAIT seconds that
    they are there. The run is *impatient_of* nodes that kept earlier runs waiting: they are not asked whether they are
    still at it, and the next run reads what they return later. If another run *is_urgent*, no node is waited for. With
    *retry_rolled_back* false, a node does not try a view again that it rolled back a while ago; its return says why it
    was rolled back.
    """
    arguments = () if retry_rolled_back else salt.utils.args.condition_input([], {"retry_rolled_back": False})
    policy = replace(apply_wait(opts), not_awaited=not_awaited, impatient_of=impatient_of, is_urgent=is_urgent)
    return _ask(opts, nodes, "wgmesh.apply", policy, *arguments)


def late_returns(opts: dict[str, Any], unanswered: Mapping[str, str]) -> JobResult:
    """The returns that arrived after the master had stopped waiting. No job is sent.

    *unanswered* gives for each node the id of the job; the result names those that are still so.
    """
    if not unanswered:
        return JobResult()
    with salt.client.get_local_client(mopts=opts) as client:
        nodes_of: dict[str, list[str]] = {}
        for node, jid in unanswered.items():
            nodes_of.setdefault(jid, []).append(node)
        found = {n: value for jid, nodes in nodes_of.items() for n, value in returns(client, jid, nodes).items()}
    return JobResult(returned=found, unanswered={n: jid for n, jid in unanswered.items() if n not in found})


def links(
    opts: dict[str, Any],
    nodes: Sequence[str],
    presumed_dead: PresumedDead = no_hint,
    *,
    is_urgent: Urgent = nothing_urgent,
) -> JobResult:
    """The answers of *nodes* to ``wgmesh.links``.

    Nodes that are *presumed_dead*, judged by what the others returned, are not waited for long. If another run
    *is_urgent*, no node is.
    """
    policy = replace(query_wait(opts), presumed_dead=presumed_dead, is_urgent=is_urgent)
    return _ask(opts, nodes, "wgmesh.links", policy)


def forwarded(opts: dict[str, Any], node: str) -> int | None:
    """How many packets *node* has forwarded since it started; None if it does not answer."""
    packets = _ask(opts, [node], "wgmesh.forwarded", query_wait(opts)).returned.get(node)
    return packets if isinstance(packets, int) and 0 <= packets < MAX_PACKETS else None


def enrol(opts: dict[str, Any], nodes: Sequence[str]) -> None:
    """*nodes* have the job to apply the formula. The master does not wait: the nodes publish their facts at the end."""
    _start(opts, nodes, "wgmesh.enrol")


def renew(opts: dict[str, Any], nodes: Sequence[str]) -> None:
    """*nodes* have the job to create their next key. The master does not wait: the nodes publish it in their facts."""
    _start(opts, nodes, "wgmesh.renew_key")


def _start(opts: dict[str, Any], nodes: Sequence[str], function: str) -> None:
    with salt.client.get_local_client(mopts=opts) as client:
        for batch in _batches(sorted(nodes)):
            client.run_job(batch, function, tgt_type="list")


def _ask(
    opts: dict[str, Any],
    nodes: Sequence[str],
    function: str,
    policy: WaitPolicy,
    *arguments: Any,
) -> JobResult:
    # Before the job: without returns that can be read, each node would look unresponsive.
    _require_configuration(opts)
    returned: dict[str, Any] = {}
    unanswered: dict[str, str] = {}
    waited: dict[str, float] = {}
    is_interrupted = False
    with salt.client.get_local_client(mopts=opts) as client:
        for batch in _batches(sorted(nodes)):
            found = _job(client, batch, function, policy, *arguments)
            returned |= found.returned
            unanswered |= found.unanswered
            waited |= found.waited
            is_interrupted |= found.is_interrupted
    return JobResult(returned=returned, unanswered=unanswered, waited=waited, is_interrupted=is_interrupted)


def _require_configuration(opts: dict[str, Any]) -> None:
    """Return if the master is configured so that nodes can be asked; FleetError with the setting to change."""
    if not opts.get("job_cache", True) or opts.get("ext_job_cache"):
        raise FleetError(
            "the master keeps no local job cache, from which wgmesh reads the returns of nodes: "
            "set job_cache: True and remove ext_job_cache in the master's configuration"
        )
    if opts.get("pillar_cache"):
        raise FleetError(
            "the master caches pillars, so nodes would get outdated views: "
            "set pillar_cache: False in the master's configuration"
        )
    if not (opts.get("minion_data_cache", True) or opts.get("enforce_mine_cache")):
        raise FleetError(
            "the master keeps no mine, where nodes publish their facts: "
            "set minion_data_cache: True in the master's configuration"
        )


def _job(client: Any, nodes: Sequence[str], function: str, policy: WaitPolicy, *arguments: Any) -> JobResult:
    """Run one job, and return what arrived until *policy* ended the wait."""
    job = client.run_job(list(nodes), function, arg=arguments, tgt_type="list")
    if not job:
        return JobResult(unanswered=dict.fromkeys(nodes, ""))
    jid, wanted, given_up = job["jid"], set(nodes), set(policy.not_awaited)
    doubted = (wanted & given_up).difference(policy.impatient_of)
    began = time.monotonic()
    deadline = began + policy.total
    arrived: dict[str, float] = {}
    dead = set(policy.not_awaited)

    def unawaited(returned: Mapping[str, Any]) -> set[str]:
        return dead | set(policy.presumed_dead(returned))

    while True:
        returned = _collect(client, jid, wanted, given_up, policy, deadline, arrived)
        given_up |= {*policy.impatient_of}
        missing = wanted - returned.keys() - (given_up - doubted)
        question = policy.find_job
        is_interrupted = policy.is_urgent()
        if question is None or not missing or time.monotonic() > deadline or is_interrupted:
            return JobResult(
                returned=returned,
                unanswered={node: jid for node in nodes if node not in returned},
                # An urgent run says nothing of a node: it had less time than any other run gives.
                waited={} if is_interrupted else _waits(wanted - unawaited(returned), arrived, began, policy.prompt),
                is_interrupted=is_interrupted,
            )
        # A slow apply looks like a dead node. Only the node itself can tell whether the job still runs.
        is_dead = functools.partial(_only, frozenset(doubted))
        question = replace(question, presumed_dead=is_dead, is_urgent=policy.is_urgent)
        running = _job(client, sorted(missing), "saltutil.find_job", question, jid).returned
        given_up |= {node for node in missing if not running.get(node)}
        # Links are down, but the node has answered: it gets the time of any other node, if only to begin the job.
        given_up -= doubted & running.keys()
        dead -= running.keys()
        doubted = set()


def _waits(nodes: Collection[str], arrived: Mapping[str, float], began: float, prompt: float) -> dict[str, float]:
    """Node → seconds for which the job waited for it, of those of *nodes* that did not answer promptly.

    *arrived* says when each answer was there. An answer is prompt until *prompt* seconds after half of the other nodes
    that answered at all. On a busy master all answers are late, and fewer than half of the nodes cannot make others
    look slow.
    """
    ended, times = time.monotonic(), sorted(arrived.values())
    found = {}
    for node in nodes:
        others = len(times) - (node in arrived)
        # The answer of the node itself is not before that index, if it is later than half of the others.
        half = times[others // 2] if others else began
        waited = arrived.get(node, ended) - half - prompt
        if waited > 0:
            found[node] = waited
    return found


def _only(nodes: frozenset[str], _: Mapping[str, Any]) -> Collection[str]:
    """*nodes* are presumed dead, whatever the others return."""
    return nodes


def _collect(
    client: Any,
    jid: str,
    wanted: set[str],
    not_awaited: Collection[str],
    policy: WaitPolicy,
    deadline: float,
    arrived: dict[str, float],
) -> dict[str, Any]:
    """The returns of *wanted* that arrived until *policy* ended the wait, or until *deadline*.

    *arrived* is given the time of each that is new.
    """
    answered_at = time.monotonic()
    answers: dict[str, Any] = {}
    while True:
        read_at = time.monotonic()
        found = returns(client, jid, wanted - answers.keys())
        now = time.monotonic()
        if found:
            answers, answered_at = {**answers, **found}, now
            arrived.update((node, now) for node in found.keys() - arrived.keys())
        missing = wanted - answers.keys()
        wait = policy.idle if answers else policy.first_answer
        if now - answered_at > PRESUMED_DEAD_WAIT and missing <= set(policy.presumed_dead(answers)):
            wait = PRESUMED_DEAD_WAIT
        if missing <= set(not_awaited) or now - answered_at > wait or now > deadline or policy.is_urgent():
            return answers
        # On a slow disk a read takes long: then at least two thirds of the time are left to others.
        time.sleep(max(JOB_POLL_INTERVAL, 2 * (now - read_at)))


def _batches(nodes: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(nodes), BATCH):
        yield list(nodes[start : start + BATCH])
