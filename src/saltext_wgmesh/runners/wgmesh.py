"""
Plan, prove, publish and push the WireGuard meshes of the policy, and tell about them.

Runs on the master, where the policy, the accepted keys and the mine are. Each function returns plain data:
``--out=json`` gives it to programs.
"""

import functools
import logging
import time

import salt.exceptions

from saltext_wgmesh.core.errors import WgmeshError
from saltext_wgmesh.master import converge as converging
from saltext_wgmesh.master import drain as draining
from saltext_wgmesh.master import install, inventory, pinned, presharing, reactions, show
from saltext_wgmesh.master import rotate as rotating
from saltext_wgmesh.master import status as state_of
from saltext_wgmesh.master.gate import PATIENCE, Gate
from saltext_wgmesh.master.ledger import Ledger
from saltext_wgmesh.master.round import Asked, together

log = logging.getLogger(__name__)

__virtualname__ = "wgmesh"
TOLD_BY_EVENTS = ("hints", "suspects", "started", "drifted", "step")
"""Kinds of words that no operator waits for."""


def __virtual__():
    return __virtualname__


def _told(function):
    """Errors of the library as the one exception that ``salt-run`` prints without a traceback, exit status 1."""

    @functools.wraps(function)
    def shell(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except WgmeshError as error:
            raise salt.exceptions.NotImplemented(str(error)) from error

    return shell


@_told
def plan():
    """
    What a converge would change, as readable lines by node, with who is left out and whether the plan
    holds its proof. Changes nothing.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.plan
    """
    return show.plan(__opts__)


@_told
def converge(node=None, hint=None, started=None, drifted=None, suspects=None, confirm=None):
    """
    Plan, prove, publish and push, so that every node that answers runs the current plan.

    One run at a time: while another runs, this call leaves a mark, and the other runs once more. On the command line it
    then waits for its turn, to say what came of it. Nodes whose view did not change are not spoken to. The exit status
    is 1 if a node's facts were refused, if one does not run yet what is published, or if something is held.

    node
        A minion id to be asked again even if it left the last pushes unanswered.

    hint
        A minion id that may know of a link that is down or up again. It is asked; nothing else follows from its name.

    started
        A minion id whose minion may have started just now: with a place in the policy and without facts, it is told to
        apply the formula.

    drifted
        A minion id that may no longer hold what it applied: it applies its view again.

    suspects
        Comma-separated minion ids to which the links that *hint* may know of lead: who should hear them is asked too.

    confirm
        The digest of what is held because it would drop too much of a mesh: it goes. An error if it is not held now.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.converge
        salt-run wgmesh.converge confirm=4f0c2a91d7be
    """
    if node is not None:
        # Salt's command line takes an id of digits for a number.
        node = str(node)
        if not inventory.is_accepted(__opts__, node):
            raise WgmeshError(f"{node} is no accepted minion id: 'salt-key -l accepted' lists those")
    words = reactions.words(__opts__, node=node, hint=hint, started=started, drifted=drifted, suspects=suspects)
    if confirm is not None:
        show.refuse_confirm(__opts__, str(confirm))
        words.append(("confirm", str(confirm)))
    return _converge(*words)


@_told
def verify():
    """
    Whether every required pair reaches each other, with nothing down, with each relay and each link down:
    in the published plan, and in the one that a converge would publish now.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.verify
    """
    return show.proof(__opts__)


@_told
def status(live=True, watch=False):
    """
    Generation, nodes, relays, links, who does not run yet what is published; and what is down, since when, who says
    so, and how long it must be good before it counts as up.

    live
        False: no node is asked how its links are.

    watch
        True: as tables, refreshed in place until Ctrl-C. Needs a terminal.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.status
        salt-run wgmesh.status watch=True
    """
    return state_of.watch(__opts__) if watch else state_of.status(__opts__, live=live)


@_told
def rebalance():
    """
    Converge, and let what came back be used as before at once: relays and links that are heard again need not be good
    for a while first, and relays that rest get their share of leaves.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.rebalance
    """
    return _converge(("rebalance", ""))


@_told
def drain(node):
    """
    Move everything off a relay or a gateway, and wait until it forwards nothing more: then it is safe to stop. It stays
    drained, whatever happens, until ``wgmesh.undrain``. The exit status is 1 if something still depends on it after a
    minute; ``still`` says what.

    node
        A minion id.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.drain relay1
    """
    node = str(node)
    draining.check(__opts__, node)
    _converge(("drain", node))
    told = draining.wait(__opts__, node)
    return told if told["safe_to_stop"] else {**told, "retcode": 1}


@_told
def undrain(node):
    """
    Let a relay or a gateway that was drained have its share again.

    node
        A minion id.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.undrain relay1
    """
    node = str(node)
    draining.check_drained(__opts__, node)
    return _converge(("undrain", node))


@_told
def rotate_preshared(mesh=None):
    """
    Converge with another secret for the preshared keys of a mesh, and so another key for each pair. No session ends for
    it. Nodes that do not answer keep the keys that they have, and so do their neighbours with them, until they do.

    mesh
        The mesh's name; by default all that have ``preshared_keys: true`` in their policy.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.rotate_preshared
    """
    return _converge(*(("renew", name) for name in presharing.to_renew(__opts__, mesh)))


@_told
def rollback(generation, mesh=None):
    """
    Plan a mesh by the policy of an earlier generation, and converge: with the facts, keys and health of now, through
    proof and push like any plan. It stays so until the mesh's policy in the pillar changes.

    generation
        The number of one of the last generations; an error lists them. 0: back to the pillar's policy.

    mesh
        The mesh's name; may be left away where there is just one.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.rollback generation=7
        salt-run wgmesh.rollback generation=0 mesh=wg0
    """
    pinned.pin(__opts__, generation, mesh)
    return _converge()


@_told
def rotate(target):
    """
    Have nodes get another WireGuard key, without a lost packet: each makes one beside the one that it has, its
    neighbours take both, it turns to the new one, interface by interface, and the old one goes. Never two neighbours
    at once, and one relay at a time. What is not done when this returns goes on by itself; ``wgmesh.status`` says who
    waits for what.

    target
        A minion id or a glob over minion ids; ``'*'`` is all of them.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.rotate web7
        salt-run wgmesh.rotate '*'
    """
    # Salt's command line takes an id of digits for a number.
    rotating.check(Ledger.of(__opts__), str(target))
    return _converge(("rotate", str(target)))


@_told
def release(node):
    """
    Give the addresses of a node that left back, so that others may have them. Its key must be gone, and the node out
    of every published plan.

    node
        A minion id.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.release web7
    """
    with Gate(reactions.folder(__opts__)).alone():
        return converging.release(__opts__, str(node))


@_told
def explain(source, destination, mesh=None):
    """
    The path between two nodes in the published plan, and why that one.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.explain web1 db1
    """
    return show.explain(__opts__, source, destination, mesh)


@_told
def whatif(down, mesh=None):
    """
    Who would be cut off, and which paths would change, if something died.

    down
        Comma-separated minion ids, and links as ``a--b``.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.whatif down=relay-fra1
        salt-run wgmesh.whatif down=relay-fra1--relay-nyc1,web1
    """
    return show.whatif(__opts__, down, mesh)


@_told
def paths(mesh=None):
    """
    The nodes on the way from each node to each other, both ends included.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.paths --out=json
    """
    return show.paths(__opts__, mesh)


@_told
def graph(mesh=None, style="mermaid"):
    """
    The published mesh as a picture.

    style
        ``mermaid``, ``dot`` or ``table``.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.graph style=dot | dot -Tsvg > mesh.svg
    """
    return show.graph(__opts__, mesh, style)


@_told
def config():
    """
    The master configuration that fits this installation, for ``/etc/salt/master.d/wgmesh.conf``.

    CLI Example:

    .. code-block:: bash

        salt-run wgmesh.config > /etc/salt/master.d/wgmesh.conf
    """
    return install.master_config()


def _converge(*words):
    waited_for = __opts__.get("__cli") == "salt-run"
    gate = Gate(reactions.folder(__opts__), hurry=waited_for)

    def work(words):
        try:
            reports = converging.converge(__opts__, Asked.of(words), waited_for=waited_for)
        except WgmeshError:
            # Nobody repeats what an event told; who called is told of the error, and calls again.
            for word in words:
                if word and word[0] in TOLD_BY_EVENTS:
                    gate.leave(word)
            raise
        # On a busy node an answer may take long: who is heard now is told again what it did not answer.
        for node in {node for report in reports for node in (*report.unheard, *report.told_in_vain)}:
            gate.leave(("hints", node))
        if any(report.goes_on for report in reports):
            gate.leave(("step", ""))
        return reports

    def goes_on(reports):
        return any(report.goes_on or report.told_in_vain for report in reports)

    def rounds_of(*words):
        return gate.run(
            work,
            *words,
            fruitful=lambda reports: any(report.eventful for report in reports),
            goes_on=goes_on,
        )

    try:
        rounds = rounds_of(*words)
        end = time.monotonic() + PATIENCE
        while waited_for and not rounds and time.monotonic() < end:
            time.sleep(0.5)
            # A word that is left while another runs would have that one run once more, and never end.
            rounds = [] if gate.is_held() else rounds_of()
    except Exception as error:
        # Reactor and schedule throw a runner's errors away: the master's log is where they can be found.
        if not waited_for:
            log.error("wgmesh.converge: %s", error, exc_info=not isinstance(error, WgmeshError))
        raise
    if not rounds and waited_for:
        busy = f"another run has been at it for {PATIENCE:g} s, and heeds this one: 'salt-run wgmesh.status' tells"
        return {"busy": busy, "retcode": 1}
    if not rounds:
        return "another run is at it, and will run once more"
    reports = together(rounds)
    told = {mesh: report.as_dict() for mesh, report in reports.items()}
    return told if all(report.clean for report in reports.values()) else {**told, "retcode": 1}
