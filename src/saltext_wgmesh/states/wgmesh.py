"""
State that this node has its part in WireGuard meshes that the master plans.

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

import time

from salt.exceptions import CommandExecutionError

from saltext_wgmesh import fresh
from saltext_wgmesh.core import facts, names, wording
from saltext_wgmesh.core.errors import WgmeshError
from saltext_wgmesh.minion import apply, joining, keys, offers, store, watching
from saltext_wgmesh.minion.host import Host
from saltext_wgmesh.minion.selfcheck import Master

__virtualname__ = "wgmesh"

TOLD_AT = "wgmesh_told_at"
"""In ``__context__``: when this run told the master of this node's facts."""
ERRORS = (WgmeshError, CommandExecutionError, OSError)


def __virtual__():
    return __virtualname__


def key_present(name):
    """
    Ensure that this node has a WireGuard key pair of its own, the private key readable by root only.

    An existing key is never replaced; wrong permissions of its file are mended. The private key shows nowhere.

    name
        Names the state; it has no other meaning.
    """
    host = Host()
    try:
        changes = keys.missing(host)
        if changes and not __opts__["test"]:
            public_key = keys.ensure(host)
            if "key" in changes:
                changes["key"]["new"] = public_key
    except ERRORS as error:
        return _failed(name, error)
    return _outcome(name, changes, same="The key is there", would="The key would be made", done="The key was made")


def facts_published(name):
    """
    Ensure that the mine holds this node's facts as they are now, and that the master has heard of new ones.

    name
        Names the state; it has no other meaning.
    """
    try:
        if __opts__["test"] and keys.public_key(Host()) is None:
            changes = {"facts": {"old": None, "new": "to be gathered once the key is made"}}
        else:
            changes = _unpublished()
        if changes and not __opts__["test"]:
            __salt__["mine.send"](names.FACTS_FUNCTION)
            __context__[TOLD_AT] = _tell_master()
            store.keep_told_underlay(Host(), changes["facts"]["new"]["underlay"])
    except ERRORS as error:
        return _failed(name, error)
    return _outcome(
        name,
        changes,
        same="The mine holds this node's facts",
        would="The facts would be published",
        done="The facts were published",
    )


def joined(name, timeout=30):
    """
    Ensure that this node is what the views in its pillar say, in all meshes.

    Where the pillar holds nothing for this node yet, wait for the master's push, and report what came of it.
    A mesh that has no place for this node is no failure: the comment says why.

    name
        Names the state; it has no other meaning.

    timeout
        Seconds to wait for the push.
    """
    host = Host()
    try:
        pillar = __pillar__
        if offers.is_old(host, pillar.get(names.VIEW_KEY)):
            # The master pushed while the states before this one ran. One that lost its ledger counts from one again.
            pillar = fresh.pillar(__opts__, __grains__)
        offered = pillar.get(names.VIEW_KEY)
        if offered:
            sealed, master = pillar.get(names.PRESHARED_KEY), Master.of(__opts__)
            return _taken(name, offers.take(host, offered, sealed=sealed, dry_run=__opts__["test"], master=master))
        if __opts__["test"]:
            changes = {"meshes": {"old": None, "new": "as the master plans them once it has this node's facts"}}
            return _outcome(name, changes, would="The node would join")
        before = joining.interfaces(host)
        # A node that came back has facts in the mine already, but the master forgot it: it must hear all the same.
        told_at = __context__.pop(TOLD_AT, None) or _tell_master()
        pushed = joining.wait(host, told_at, timeout, __salt__["wgmesh.apply"])
        if pushed is None:
            return _failed(
                name, f"The master gave no answer within {timeout} s: 'salt-run wgmesh.plan' says what it is lacking"
            )
        return _taken(name, pushed, joining.appeared(before, joining.interfaces(host)))
    except ERRORS as error:
        return _failed(name, error)


def watched(name):
    """
    Ensure that a watcher of the installed version runs, and is started again when it dies.

    For nodes without systemd; where it runs, the unit that ``wgmesh.watch_unit`` returns does this.

    name
        Names the state; it has no other meaning.
    """
    host = Host()
    try:
        running = watching.running(host)
        changes = {} if running == watching.VERSION else {"watcher": {"old": running, "new": watching.VERSION}}
        if changes and not __opts__["test"]:
            watching.start(host)
    except ERRORS as error:
        return _failed(name, error)
    return _outcome(
        name, changes, same="The watcher runs", would="The watcher would be started", done="The watcher was started"
    )


def departed(name, key=False):
    """
    Ensure that nothing of ours is left on a node without meshes: no watcher runs, and nothing is remembered.

    Where systemd runs the watcher, its unit must be stopped before.

    name
        Names the state; it has no other meaning.

    key
        Whether the node's key is to go too.
    """
    host, test = Host(), __opts__["test"]
    try:
        there = store.meshes(host)
        if there and not test:
            return _failed(name, f"This node still has {', '.join(there)}: apply the state wgmesh.absent for it first")
        changes = _departing(host, key)
        if not test:
            watching.stop(host)
            if "key" in changes:
                keys.remove(host)
            store.forget_all(host)
    except ERRORS as error:
        return _failed(name, error)
    return _outcome(
        name,
        changes,
        same="Nothing is here",
        would="What is left would be removed",
        done="What was left was removed",
    )


def interface_present(name, view=None):
    """
    Ensure that this node holds its view of one mesh: interfaces, peers, addresses, routes, files for boot.

    name
        The mesh's name.

    view
        The view, as in the pillar key ``wgmesh_view``; by default the one in this node's pillar.
    """
    offered = {name: view} if view else __pillar__.get(names.VIEW_KEY) or {}
    if name not in offered:
        return _failed(name, f"The pillar holds no view of {name} for this node: 'salt-run wgmesh.plan' says why")
    try:
        sealed, master = __pillar__.get(names.PRESHARED_KEY), Master.of(__opts__)
        return _taken(name, offers.take(Host(), offered, name, sealed=sealed, dry_run=__opts__["test"], master=master))
    except ERRORS as error:
        return _failed(name, error)


def absent(name, key=False):
    """
    Ensure that nothing of a mesh is on this node: no interface, route, rule, file for boot or memory of it.

    It is for a node that the policy has no place for any more, or for a mesh that it has no more: as long as the master
    plans with this node, its next push brings all of it back. The formula ``wgmesh.absent`` also ends the watcher and
    the beacon with the last mesh.

    name
        The mesh's name.

    key
        Whether the node's key is to go too. It stays as long as the node is in another mesh.
    """
    host, test = Host(), __opts__["test"]
    try:
        changes = wording.as_changes(apply.remove(host, name, dry_run=test).changes)
        if key and keys.is_any(host) and not set(store.meshes(host)) - {name}:
            changes["key"] = {"old": str(host.key_file), "new": None}
            if not test:
                keys.remove(host)
        if not test:
            store.forget_outcome(host, name)
            if not store.meshes(host):
                store.forget_all(host)
    except ERRORS as error:
        return _failed(name, error)
    return _outcome(
        name,
        changes,
        same=f"Nothing of {name} is here",
        would=f"{name} would be removed",
        done=f"{name} was removed",
    )


def _departing(host, key):
    """What of ours is on a node that has no mesh."""
    changes = {}
    if running := watching.holders(host):
        changes["watcher"] = {"old": running, "new": None}
    if remembered := store.remembered(host):
        changes["memory"] = {"old": remembered, "new": None}
    if key and keys.is_any(host):
        changes["key"] = {"old": str(host.key_file), "new": None}
    return changes


def _unpublished():
    """The facts of which the mine holds others, or none. Asking the mine is left to when the pillar knows no better."""
    new = __salt__["wgmesh.facts"]()
    published = facts.digest(new)
    if __pillar__.get(names.PUBLISHED_KEY) == published:
        return {}
    old = (__salt__["mine.get"](__opts__["id"], names.FACTS_FUNCTION) or {}).get(__opts__["id"])
    return {} if facts.digest(old) == published else {"facts": {"old": old, "new": new}}


def _tell_master():
    """The master hears that this node's facts are worth a look. Returns when, in seconds since the epoch."""
    now = time.time()
    __salt__["event.send"](names.FACTS_TAG.format(node=__opts__["id"]))
    return now


def _taken(name, outcomes, changes=None):
    """A state's return for what came of the master's offers."""
    changes = changes or wording.as_changes(change for outcome in outcomes for change in outcome.changes)
    comments = [f"{o.mesh}: {o.error or o.reason}" for o in outcomes if o.error or o.reason]
    ret = _outcome(
        name,
        changes,
        same="The node holds its views",
        would="The node would be changed",
        done="The node holds its views now",
    )
    if any(o.error for o in outcomes):
        ret["result"] = False
        return {**ret, "comment": "\n".join(comments)}
    return {**ret, "comment": "\n".join([ret["comment"], *comments])}


def _outcome(name, changes, same="", would="", done=""):
    if not changes:
        return {"name": name, "result": True, "changes": {}, "comment": same}
    if __opts__["test"]:
        return {"name": name, "result": None, "changes": changes, "comment": would}
    return {"name": name, "result": True, "changes": changes, "comment": done}


def _failed(name, error):
    return {"name": name, "result": False, "changes": {}, "comment": str(error)}
