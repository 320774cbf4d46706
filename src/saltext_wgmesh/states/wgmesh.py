"""
Ensure that this node has its part in WireGuard meshes that the master plans.

.. versionadded:: 0.1.0

.. code-block:: yaml

    wgmesh-key:
      wgmesh.key_present: []

    wgmesh-facts:
      wgmesh.facts_published:
        - require:
          - wgmesh: wgmesh-key

    wgmesh-joined:
      wgmesh.joined:
        - require:
          - wgmesh: wgmesh-facts
"""

from saltext_wgmesh import current_pillar, salt_errors, supported
from saltext_wgmesh.core import constants
from saltext_wgmesh.core.device import descriptions
from saltext_wgmesh.core.inputs import facts_format
from saltext_wgmesh.core.inputs.facts_format import readers_of_facts
from saltext_wgmesh.minion.apply import assignments, await_push, first_link, removal
from saltext_wgmesh.minion.apply.health_check import Master
from saltext_wgmesh.minion.state import key_holder, keys, store
from saltext_wgmesh.minion.state.key_holder import Minion
from saltext_wgmesh.minion.system.host import Host
from saltext_wgmesh.minion.watcher import service
from saltext_wgmesh.minion.watcher.instance import INSTALLED_VERSION

__virtualname__ = "wgmesh"

TOLD_AT = "wgmesh_told_at"
"""Key in ``__context__``: the version of the outcomes when this run sent the master the event of new facts."""


def __virtual__():
    return supported.virtual(__opts__, __virtualname__)


@salt_errors.for_state
def key_present(name):
    """
    Ensure that this node has its own WireGuard key pair, with a private key that only root can read.

    An existing key is never replaced; wrong permissions of its file are corrected. The private key is not shown.

    name
        The name of the state; it has no other meaning.

    CLI Example:

    .. code-block:: bash

        salt web1 state.single wgmesh.key_present wgmesh-key
    """
    host = _held_host()
    changes = keys.pending_changes(host)
    if changes and not __opts__["test"]:
        public_key = keys.ensure(host)
        if "key" in changes:
            changes["key"]["new"] = public_key
    return _outcome(
        name, changes, same="The key is present", would="The key would be created", done="The key was created"
    )


@salt_errors.for_state
def facts_published(name):
    """
    Ensure that the mine has this node's present facts, and that the master got an event if they are new.

    name
        The name of the state; it has no other meaning.

    CLI Example:

    .. code-block:: bash

        salt web1 state.single wgmesh.facts_published wgmesh-facts
    """
    current_pillar.require_master(__opts__, "the mine, where facts are published,")
    if __opts__["test"] and keys.public_key(Host()) is None:
        changes = {"facts": {"old": None, "new": "to be gathered when the key exists"}}
    else:
        changes = _unpublished()
    if changes and not __opts__["test"]:
        __salt__["mine.send"](constants.FACTS_FUNCTION, **readers_of_facts(__opts__["id"]))
        __context__[TOLD_AT] = _tell_master()
        store.set_published_underlay(Host(), changes["facts"]["new"]["underlay"])
    return _outcome(
        name,
        changes,
        same="The mine has this node's facts",
        would="The facts would be published",
        done="The facts were published",
    )


@salt_errors.for_state
def joined(name, timeout=30, patience=30):
    """
    Ensure that this node has applied its view of every mesh in its pillar, and hears a neighbour in each.

    If the pillar has no view for this node yet, the state waits for the master's push and reports its result. It fails
    at once if the master's run fails, for instance since there is no policy. It is no failure that a mesh has no place
    for this node: the comment says why.

    name
        The name of the state; it has no other meaning.

    timeout
        Seconds to wait for the push.

    patience
        Seconds to wait until the node hears a neighbour in each mesh that has any. If it hears none by then, the result
        is False, and the comment has the cause as far as it is known. 0: links are not looked at.

    CLI Example:

    .. code-block:: bash

        salt web1 state.single wgmesh.joined wgmesh-joined timeout=60
    """
    host = _held_host()
    pillar = _recent_pillar(host)
    if offered := pillar.get(constants.PILLAR_VIEWS):
        psks, master = pillar.get(constants.PILLAR_PSKS), Master.of(__opts__)
        outcomes = assignments.apply_assignments(
            host, offered, sealed_psks=psks, dry_run=__opts__["test"], master=master
        )
        return _with_pillar_error(_heard(name, outcomes, patience), pillar)
    current_pillar.require_master(__opts__, "a view")
    if constants.PILLAR_ERROR in pillar:
        return _with_pillar_error(_failed(name, "The pillar has no view for this node"), pillar)
    if __opts__["test"]:
        changes = {"meshes": {"old": None, "new": "as the master plans them when it has this node's facts"}}
        return _outcome(name, changes, would="The node would join")
    before = await_push.interfaces(host)
    pushed = _await_push(host, pillar, timeout)
    if isinstance(pushed, str):
        return _failed(name, f"The master sent no view{pushed}")
    return _heard(name, pushed, patience, await_push.new_interfaces(before, await_push.interfaces(host)))


@salt_errors.for_state
def watcher_running(name):
    """
    Ensure that a watcher of the installed version runs, and is restarted when it dies.

    For nodes without systemd. On nodes with systemd, the unit that ``wgmesh.watch_unit`` returns does this.

    name
        The name of the state; it has no other meaning.

    CLI Example:

    .. code-block:: bash

        salt web1 state.single wgmesh.watcher_running wgmesh-watch
    """
    host = _held_host()
    changes = {}
    if not service.is_current(host):
        changes["watcher"] = {"old": service.running_version(host), "new": INSTALLED_VERSION}
        if not __opts__["test"]:
            service.ensure_running(host)
    return _outcome(
        name, changes, same="The watcher runs", would="The watcher would be started", done="The watcher was started"
    )


@salt_errors.for_state
def uninstalled(name, key=False):
    """
    Ensure that nothing of this extension is left on a node without meshes: no watcher, and no records.

    If systemd runs the watcher, its unit must be stopped first.

    name
        The name of the state; it has no other meaning.

    key
        True: remove the node's key too.

    CLI Example:

    .. code-block:: bash

        salt web1 state.single wgmesh.uninstalled wgmesh-uninstalled key=True
    """
    host, test = _held_host(removes=True), __opts__["test"]
    there = store.meshes(host)
    if there and not test:
        return _failed(
            name, f"This node still has the meshes {', '.join(there)}: apply the state wgmesh.absent for them first"
        )
    changes = _leftovers(host, key)
    if not test:
        service.stop(host)
        if "key" in changes:
            keys.remove_keys(host)
        store.purge_all(host)
    return _outcome(
        name,
        changes,
        same="Nothing is left to remove",
        would="The leftovers would be removed",
        done="The leftovers were removed",
    )


@salt_errors.for_state
def interface_present(name, view=None, patience=30):
    """
    Ensure that this node has applied its view of one mesh: interfaces, peers, addresses, routes and boot files. It must
    also hear a neighbour, if it has any.

    name
        The mesh's name.

    view
        The view, as in the pillar key ``wgmesh_view``; by default the one in this node's pillar.

    patience
        Seconds to wait until the node hears a neighbour. If it hears none by then, the result is False, and the comment
        has the cause as far as it is known. 0: links are not looked at.

    CLI Example:

    .. code-block:: bash

        salt web1 state.single wgmesh.interface_present wg0
    """
    host = _held_host()
    offered = {name: view} if view else __pillar__.get(constants.PILLAR_VIEWS) or {}
    if name not in offered:
        current_pillar.require_master(__opts__, f"a view of {name}")
        missing = f"The pillar has no view of {name} for this node: 'salt-run wgmesh.plan' on the master shows why"
        return _with_pillar_error(_failed(name, missing), __pillar__)
    sealed, master = __pillar__.get(constants.PILLAR_PSKS), Master.of(__opts__)
    return _heard(
        name,
        assignments.apply_assignments(host, offered, name, sealed_psks=sealed, dry_run=__opts__["test"], master=master),
        patience,
    )


@salt_errors.for_state
def absent(name, key=False):
    """
    Ensure that nothing of a mesh is on this node: no interface, route, rule, boot file or record.

    Remove the node, or the mesh, from the policy first: as long as the master plans with this node, its next push
    brings everything back. The formula ``wgmesh.absent`` also removes the watcher and the beacon with the last mesh.

    name
        The mesh's name.

    key
        True: remove the node's key too. It stays as long as the node is in another mesh.

    CLI Example:

    .. code-block:: bash

        salt web1 state.single wgmesh.absent wg0
    """
    host, test = _held_host(removes=True), __opts__["test"]
    changes = descriptions.salt_changes(removal.remove_mesh(host, name, dry_run=test).changes)
    if key and keys.exists(host) and not set(store.meshes(host)) - {name}:
        changes["key"] = {"old": str(host.key_file), "new": None}
        if not test:
            keys.remove_keys(host)
    if not test:
        store.purge_outcome(host, name)
        if not store.meshes(host):
            store.purge_all(host)
    return _outcome(
        name,
        changes,
        same=f"Nothing of {name} is on this node",
        would=f"{name} would be removed",
        done=f"{name} was removed",
    )


def _held_host(removes=False):
    """This host, which from now on this minion alone changes; HostError if another minion of the host does already."""
    host, minion = Host(), Minion.of(__opts__)
    if removes or __opts__["test"]:
        key_holder.require_holder(host, minion)
    else:
        key_holder.take_hold(host, minion)
    return host


def _leftovers(host, key):
    """The leftovers of this extension on a node that has no mesh, as a state's changes."""
    changes = {}
    if running := service.watcher_pids(host):
        changes["watcher"] = {"old": running, "new": None}
    if remembered := store.leftovers(host):
        changes["memory"] = {"old": remembered, "new": None}
    if key and keys.exists(host):
        changes["key"] = {"old": str(host.key_file), "new": None}
    return changes


def _recent_pillar(host):
    """The pillar, fetched again if the master has pushed to this node while earlier states of this run ran.

    The generation alone does not show what is older: a master that lost its ledger counts from one again.
    """
    if assignments.is_stale(host, __pillar__.get(constants.PILLAR_VIEWS)):
        return current_pillar.pillar(__opts__, __grains__)
    return __pillar__


def _await_push(host, pillar, timeout):
    """The results of the master's push; if there is none within *timeout* seconds, when and why, as text."""
    # The mine of a node that came back may already have its facts. The master has dropped the node all the same,
    # so it needs the event.
    told_at = __context__.pop(TOLD_AT, None) or _tell_master()
    failed_before = current_pillar.failed_run(pillar)
    pushed = await_push.await_push(
        host,
        told_at,
        timeout,
        __salt__["wgmesh.apply"],
        lambda: current_pillar.refusal(__opts__, __grains__, failed_before),
        await_push.ASK_AFTER_FAILED_RUN if failed_before else await_push.FETCH_AFTER,
    )
    if isinstance(pushed, str):
        return f": {pushed}"
    if pushed is None:
        why = failed_before["reason"] if failed_before else "'salt-run wgmesh.plan' on the master shows why"
        return f" within {timeout} s: {why}"
    return pushed


def _unpublished():
    """The facts as a state's change, if the mine has others or none.

    The digest in the pillar answers this without a question to the master; the mine is asked only if they differ.
    """
    new = __salt__["wgmesh.facts"]()
    published = facts_format.facts_digest(new)
    if __pillar__.get(constants.PILLAR_FACTS_DIGEST) == published:
        return {}
    old = (__salt__["mine.get"](__opts__["id"], constants.FACTS_FUNCTION) or {}).get(__opts__["id"])
    return {} if facts_format.facts_digest(old) == published else {"facts": {"old": old, "new": new}}


def _tell_master():
    """The master got the event that this node has new facts. Returns the version of the outcomes before that."""
    before = store.outcomes_version(Host())
    __salt__["event.send"](constants.FACTS_TAG.format(node=__opts__["id"]))
    return before


def _heard(name, outcomes, patience, changes=None):
    """A state's return for the results of applying views: a node that hears no neighbour has not joined."""
    ret = _taken(name, outcomes, changes)
    if ret["result"] is not True or not patience:
        return ret
    silent = first_link.await_first_links(Host(), [o.mesh for o in outcomes if not o.reason], patience)
    return {**ret, "result": False, "comment": "\n".join([ret["comment"], *silent])} if silent else ret


def _taken(name, outcomes, changes=None):
    """A state's return for the results of applying views."""
    changes = changes or descriptions.salt_changes(change for outcome in outcomes for change in outcome.changes)
    comments = [f"{o.mesh}: {o.error or o.reason}" for o in outcomes if o.error or o.reason]
    same, would = "The node has applied its views", "The node would be changed"
    ret = _outcome(name, changes, same=same, would=would, done="The node was changed to its views")
    if any(o.error for o in outcomes):
        ret["result"] = False
        return {**ret, "comment": "\n".join(comments)}
    return {**ret, "comment": "\n".join([ret["comment"], *comments])}


def _outcome(name, changes, same="", would="", done=""):
    is_test = bool(changes) and __opts__["test"]
    comment = (would if is_test else done) if changes else same
    return {"name": name, "result": None if is_test else True, "changes": changes or {}, "comment": comment}


def _with_pillar_error(ret, pillar):
    """The same return; a failed one if the master could not read some of this node's records."""
    error = pillar.get(constants.PILLAR_ERROR)
    return {**ret, "result": False, "comment": f"{ret['comment']}\nOn the master: {error}"} if error else ret


def _failed(name, error):
    return {"name": name, "result": False, "changes": {}, "comment": str(error)}
