"""
This node's part in WireGuard meshes that the master plans.

Each function is a thin shell over ``saltext_wgmesh.minion``, which knows nothing of Salt. No function returns,
logs or passes on a private key.
"""

import functools
import os
import time

import salt.utils.files
from salt.exceptions import CommandExecutionError

from saltext_wgmesh import fresh
from saltext_wgmesh.core import names, saltkey
from saltext_wgmesh.core.errors import WgmeshError
from saltext_wgmesh.core.facts import digest as digest_of
from saltext_wgmesh.minion import apply as apply_
from saltext_wgmesh.minion import facts as facts_
from saltext_wgmesh.minion import keys, offers, report, signals, store, watching
from saltext_wgmesh.minion.host import Host
from saltext_wgmesh.minion.selfcheck import Master

__virtualname__ = "wgmesh"
ENROL_PATIENCE = 300
"""Seconds to wait for another state run of this node."""
__func_alias__ = {"apply_view": "apply", "diff_view": "diff"}


def __virtual__():
    return __virtualname__


def _translated(function):
    """Errors of this package and of the operating system become Salt's own, with the same words."""

    @functools.wraps(function)
    def shell(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except (WgmeshError, OSError) as error:
            raise CommandExecutionError(str(error)) from error

    return shell


@_translated
def facts():
    """
    Return what this node says of itself to the master: public key, underlay addresses, networks.

    It is meant for the mine, and changes nothing.

    CLI Example:

    .. code-block:: bash

        salt '*' wgmesh.facts
    """
    with salt.utils.files.fopen(os.path.join(__opts__["pki_dir"], "minion.pub")) as pem:
        salt_key = saltkey.fingerprint(pem.read())
    return facts_.gather(Host(), __opts__["id"], salt_key)


@_translated
def public_key():
    """
    Return this node's WireGuard public key, or None if it has none yet.

    CLI Example:

    .. code-block:: bash

        salt '*' wgmesh.public_key
    """
    return keys.public_key(Host())


@_translated
def show(mesh=None):
    """
    Return the meshes of this node as they are now: devices, peers with age of handshake and traffic, routes.

    mesh
        Only the mesh of that name.

    CLI Example:

    .. code-block:: bash

        salt db1 wgmesh.show
    """
    return report.show(Host(), mesh)


@_translated
def links():
    """
    Return by mesh how the links of this node are, as its watcher says, or where none runs as WireGuard's counters say.

    CLI Example:

    .. code-block:: bash

        salt db1 wgmesh.links
    """
    return signals.links(Host())


@_translated
def forwarded():
    """
    Return how many packets this node has forwarded since it started. It stands still on a relay that is drained.

    CLI Example:

    .. code-block:: bash

        salt relay1 wgmesh.forwarded
    """
    return report.forwarded(Host())


@_translated
def meshes():
    """
    Return the meshes that have something on this node.

    CLI Example:

    .. code-block:: bash

        salt db1 wgmesh.meshes
    """
    return list(store.meshes(Host()))


@_translated
def watch_unit():
    """
    Return the systemd unit of this node's watcher.

    CLI Example:

    .. code-block:: bash

        salt web1 wgmesh.watch_unit
    """
    return watching.unit()


@_translated
def diff_view(mesh=None):
    """
    Return, by mesh, what ``wgmesh.apply`` would change now, one line a change. Nothing is changed.

    mesh
        Only the mesh of that name.

    CLI Example:

    .. code-block:: bash

        salt db1 wgmesh.diff
    """
    outcomes = offers.take(Host(), fresh.pillar(__opts__, __grains__).get(names.VIEW_KEY), mesh, dry_run=True)
    return {outcome.mesh: outcome.as_dict() for outcome in outcomes}


@_translated
def apply_view(mesh=None, insists=True):
    """
    Fetch this node's views from the master and make the node what they say.

    Only what differs is touched; a mesh that the pillar does not mention is left as it is. Returns by mesh the digest
    of the view that now holds, its generation and the changes, or an ``error``; and under ``facts`` this node's facts.
    Where the mine holds others of it, they are published.

    A view that breaks the node (a link, all relays or the master are not reached any more) is taken back: the node
    holds the view before, and the return says so with ``taken_back``.

    mesh
        Only the mesh of that name.

    insists
        False: a view that was taken back a while ago is not tried again, and the return says why it was.

    CLI Example:

    .. code-block:: bash

        salt db1 wgmesh.apply
    """
    pillar = fresh.pillar(__opts__, __grains__)
    if store.meshes(Host()):
        # A node that has a part in a mesh had a key: one that was lost is replaced.
        keys.ensure(Host())
    sealed = pillar.get(names.PRESHARED_KEY)
    outcomes = offers.take(
        Host(), pillar.get(names.VIEW_KEY), mesh, sealed=sealed, master=Master.of(__opts__), insists=insists
    )
    ret = {outcome.mesh: outcome.as_dict() for outcome in outcomes}
    # A node without a key has nothing to publish; each mesh's error says so already.
    return {**ret, "facts": _published(pillar.get(names.PUBLISHED_KEY))} if public_key() else ret


@_translated
def renew_key():
    """
    Make another key beside the one that this node runs, unless one is there, and publish it with this node's facts.

    Nothing runs it yet: the master gives the node its turn once all its neighbours take the new key too. The
    private part shows nowhere. Returns the facts. ``salt-run wgmesh.rotate`` calls it.

    CLI Example:

    .. code-block:: bash

        salt db1 wgmesh.renew_key
    """
    keys.prepare(Host())
    return _published(fresh.pillar(__opts__, __grains__).get(names.PUBLISHED_KEY))


@_translated
def rollback(mesh):
    """
    Go back to the view that this node held before the present one, until the next apply.

    mesh
        The mesh's name.

    CLI Example:

    .. code-block:: bash

        salt db1 wgmesh.rollback wg0
    """
    done = apply_.rollback(Host(), mesh, Master.of(__opts__))
    return {"digest": done.digest, "changed": done.changed, "changes": done.lines}


def enrol():
    """
    Apply the formula, after a state run of this node that may be under way, such as the highstate of a first start.

    The master's runner calls it on a node that started without facts. A state run that somebody asks for meanwhile is
    not refused for it.

    CLI Example:

    .. code-block:: bash

        salt web7 wgmesh.enrol
    """
    deadline = time.monotonic() + ENROL_PATIENCE
    while __salt__["saltutil.is_running"]("state.*") and time.monotonic() < deadline:
        time.sleep(0.5)
    # Two state runs that make this folder at once, the first of a minion's life, fail (salt.state.get_accumulator_dir).
    os.makedirs(os.path.join(__opts__["cachedir"], "accumulator"), exist_ok=True)
    return __salt__["state.apply"]("wgmesh")


def _published(digest):
    """This node's facts as they are now; if the mine holds some of another *digest*, these replace them, and the master
    hears of it."""
    new = facts()
    if digest not in (None, digest_of(new)):
        __salt__["mine.send"](names.FACTS_FUNCTION)
        __salt__["event.send"](names.FACTS_TAG.format(node=__opts__["id"]))
    store.keep_told_underlay(Host(), new["underlay"])
    return new
