"""
This node's part in WireGuard meshes that the master plans.

.. versionadded:: 0.1.0

Each function is a thin shell over ``saltext_wgmesh.minion``, which imports nothing of Salt. No function returns,
logs or passes on a private key.
"""

import os
import time

import salt.utils.files

from saltext_wgmesh import current_pillar, salt_errors, supported
from saltext_wgmesh.core import constants
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.inputs import salt_key
from saltext_wgmesh.core.inputs.facts_format import facts_digest as digest_of
from saltext_wgmesh.core.inputs.facts_format import readers_of_facts
from saltext_wgmesh.minion.apply import apply as apply_
from saltext_wgmesh.minion.apply import assignments, removal
from saltext_wgmesh.minion.apply.health_check import Master
from saltext_wgmesh.minion.reporting import events
from saltext_wgmesh.minion.reporting import facts as facts_
from saltext_wgmesh.minion.reporting import show as show_
from saltext_wgmesh.minion.state import key_holder, keys, store
from saltext_wgmesh.minion.state.key_holder import Minion
from saltext_wgmesh.minion.system.host import Host
from saltext_wgmesh.minion.watcher import service

__virtualname__ = "wgmesh"
STATE_RUN_TIMEOUT = 300
"""Seconds to wait for another state run of this node."""
ONLY_TESTS = "nothing was changed: the configuration of this minion has 'test: True'"
__func_alias__ = {"apply_view": "apply", "diff_view": "diff"}


def __virtual__():
    return supported.virtual(__opts__, __virtualname__)


@salt_errors.for_module
def facts():
    """
    Return this node's facts for the master: public key, underlay addresses, networks. Nothing is changed.

    The mine calls this function.

    CLI Example:

    .. code-block:: bash

        salt '*' wgmesh.facts
    """
    key_holder.require_holder(Host(), Minion.of(__opts__))
    path = os.path.join(__opts__["pki_dir"], "minion.pub")
    if not os.path.exists(path):
        current_pillar.require_master(__opts__, "the Salt key, which the facts name,")
    with salt.utils.files.fopen(path) as pem:
        fingerprint = salt_key.fingerprint(pem.read())
    return facts_.gather(Host(), __opts__["id"], fingerprint)


@salt_errors.for_module
def public_key():
    """
    Return this node's WireGuard public key, or None if it has none yet.

    CLI Example:

    .. code-block:: bash

        salt '*' wgmesh.public_key
    """
    return keys.public_key(Host())


@salt_errors.for_module
def show(mesh=None):
    """
    Return the meshes of this node as they are now: devices, peers with age of handshake and traffic, routes.

    mesh
        The mesh's name; by default all meshes.

    CLI Example:

    .. code-block:: bash

        salt db1 wgmesh.show
    """
    return {name: shown.as_dict() for name, shown in show_.show(Host(), mesh).items()}


@salt_errors.for_module
def links():
    """
    Return the state of this node's links by mesh: from its watcher, or from WireGuard's counters if no watcher runs.

    CLI Example:

    .. code-block:: bash

        salt db1 wgmesh.links
    """
    return events.links(Host())


@salt_errors.for_module
def forwarded():
    """
    Return how many packets this node has forwarded since it started. The number stays the same on a drained relay.

    CLI Example:

    .. code-block:: bash

        salt relay1 wgmesh.forwarded
    """
    return show_.forwarded(Host())


@salt_errors.for_module
def meshes():
    """
    Return the names of the meshes that have a device, file or record on this node.

    CLI Example:

    .. code-block:: bash

        salt db1 wgmesh.meshes
    """
    return list(store.meshes(Host()))


@salt_errors.for_module
def watch_unit():
    """
    Return the systemd unit of this node's watcher.

    CLI Example:

    .. code-block:: bash

        salt web1 wgmesh.watch_unit
    """
    return service.unit()


@salt_errors.for_module
def diff_view(mesh=None):
    """
    Return what ``wgmesh.apply`` would change now, by mesh, one line for each change. Nothing is changed.

    mesh
        The mesh's name; by default all meshes.

    CLI Example:

    .. code-block:: bash

        salt db1 wgmesh.diff
    """
    outcomes = assignments.apply_assignments(Host(), _fetched().get(constants.PILLAR_VIEWS), mesh, dry_run=True)
    return {outcome.mesh: outcome.as_dict() for outcome in outcomes}


@salt_errors.for_module
def apply_view(mesh=None, retry_rolled_back=True, new_ledger=False):
    """
    Fetch this node's views from the master and apply them.

    Only differences are changed, and a mesh that the pillar does not mention stays as it is. Returns by mesh the digest
    of the applied view, its generation and the changes, or an ``error``. Under ``facts`` the return has this node's
    facts, which are published if the mine has others. ``pillar_error`` says which records the master could not read.

    A view that breaks the node is rolled back: if a link, all relays or the master are no longer reachable, the node
    restores the view that it had before. The return then says so.

    If the minion's configuration has ``test: True``, nothing is changed. The return says so, and what would change.

    mesh
        The mesh's name; by default all meshes.

    retry_rolled_back
        False: a view that was rolled back a while ago is not tried again, and the return says why it was rolled back.

    new_ledger
        True: follow the ledger of this master from now on, also if the present view is from that of another one.

    CLI Example:

    .. code-block:: bash

        salt db1 wgmesh.apply
    """
    test = _only_tests()
    hold = key_holder.require_holder if test else key_holder.take_hold
    hold(Host(), Minion.of(__opts__))
    pillar = _fetched()
    if store.meshes(Host()) and not test:
        # A node that is in a mesh had a key. If its file was deleted, the node needs another one.
        keys.ensure(Host())
    sealed = pillar.get(constants.PILLAR_PSKS)
    outcomes = assignments.apply_assignments(
        Host(),
        pillar.get(constants.PILLAR_VIEWS),
        mesh,
        sealed_psks=sealed,
        master=Master.of(__opts__),
        retry_rolled_back=retry_rolled_back,
        new_ledger=new_ledger is True,
        dry_run=test,
    )
    if test:
        return {outcome.mesh: _tested(outcome) for outcome in outcomes}
    ret = {outcome.mesh: outcome.as_dict() for outcome in outcomes}
    if error := pillar.get(constants.PILLAR_ERROR):
        ret["pillar_error"] = error
    # A node without a key has no facts to publish, and each mesh's error says so already.
    return {**ret, "facts": _published(pillar.get(constants.PILLAR_FACTS_DIGEST))} if public_key() else ret


@salt_errors.for_module
def renew_key():
    """
    Create the node's next key beside the one that it runs, unless there is one, and publish it with this node's facts.

    No interface runs the next key yet: the master activates it when all neighbours accept it. The private key is not
    shown. Returns the facts. ``salt-run wgmesh.rotate`` calls this function.

    CLI Example:

    .. code-block:: bash

        salt db1 wgmesh.renew_key
    """
    current_pillar.require_master(__opts__, "another key, which neighbours must accept first,")
    _require_changes_allowed()
    key_holder.take_hold(Host(), Minion.of(__opts__))
    keys.create_next_key(Host())
    return _published(current_pillar.pillar(__opts__, __grains__).get(constants.PILLAR_FACTS_DIGEST))


@salt_errors.for_module
def replace_key():
    """
    Give this node a key of its own in place of the present one, which another node has too, and publish its facts.

    For a node whose disk was copied from another node. All its meshes are removed first, since the kernel runs them
    with the copied key, and perhaps as that other node. Then the node applies the views that the master has for it. The
    links come up when the master has pushed the new key to the neighbours.

    A node that has its key to itself gets another one with ``salt-run wgmesh.rotate``, which interrupts nothing.

    Returns what ``wgmesh.apply`` returns.

    CLI Example:

    .. code-block:: bash

        salt web2 wgmesh.replace_key
    """
    current_pillar.require_master(__opts__, "views, which name the new key,")
    _require_changes_allowed()
    host = Host()
    key_holder.require_holder(host, Minion.of(__opts__))
    for mesh in store.meshes(host):
        removal.remove_mesh(host, mesh)
    keys.remove_keys(host)
    key_holder.take_hold(host, Minion.of(__opts__))
    keys.ensure(host)
    __salt__["mine.send"](constants.FACTS_FUNCTION, **readers_of_facts(__opts__["id"]))
    __salt__["event.send"](constants.FACTS_TAG.format(node=__opts__["id"]))
    return apply_view()


@salt_errors.for_module
def rollback(mesh):
    """
    Restore the view that this node had before the present one, until the next apply.

    mesh
        The mesh's name.

    CLI Example:

    .. code-block:: bash

        salt db1 wgmesh.rollback wg0
    """
    _require_changes_allowed()
    key_holder.take_hold(Host(), Minion.of(__opts__))
    done = apply_.rollback(Host(), mesh, Master.of(__opts__))
    return {"digest": done.digest, "changed": done.changed, "changes": done.lines}


def enrol():
    """
    Apply the formula, after any state run that is in progress on this node, such as the highstate of its first start.

    The master's runner calls this function on a node that started without facts. State runs that are requested while
    it waits are not refused.

    CLI Example:

    .. code-block:: bash

        salt web7 wgmesh.enrol
    """
    deadline = time.monotonic() + STATE_RUN_TIMEOUT
    while __salt__["saltutil.is_running"]("state.*") and time.monotonic() < deadline:
        time.sleep(0.5)
    # If two first state runs create this folder at once, one of them fails (salt.state.get_accumulator_dir).
    os.makedirs(os.path.join(__opts__["cachedir"], "accumulator"), exist_ok=True)
    return __salt__["state.apply"]("wgmesh")


def _fetched():
    """This node's pillar, compiled now. A run without a master has no view in it, unless its own pillar has one."""
    pillar = current_pillar.pillar(__opts__, __grains__)
    if not pillar.get(constants.PILLAR_VIEWS):
        current_pillar.require_master(__opts__, "a view")
    return pillar


def _only_tests():
    """Whether this minion's configuration forbids changes, as it does to states."""
    return bool(__opts__.get("test"))


def _require_changes_allowed():
    if _only_tests():
        raise HostError(ONLY_TESTS)


def _tested(outcome):
    """The return for a mesh that was only tested. It has no digest, which the master would take for applied."""
    found = {key: value for key, value in outcome.as_dict().items() if key != "digest"}
    return {**found, "error": outcome.error or ONLY_TESTS, constants.TEST_KEY: True}


def _published(digest):
    """This node's facts as they are now.

    If the mine has facts of another *digest*, it gets the present ones, and the master an event. None means that the
    mine has no facts; the formula's states publish the first ones.
    """
    new = facts()
    if digest not in (None, digest_of(new)):
        __salt__["mine.send"](constants.FACTS_FUNCTION, **readers_of_facts(__opts__["id"]))
        __salt__["event.send"](constants.FACTS_TAG.format(node=__opts__["id"]))
    store.set_published_underlay(Host(), new["underlay"])
    return new
