"""
Tell the master when links of this node's WireGuard meshes die or come back, and when somebody changed what Salt set.

.. code-block:: yaml

    beacons:
      wgmesh:
        - interval: 1

The formula sets it up. Each event tells all that changed at once for one mesh, under the tag
``salt/beacon/<minion id>/wgmesh/<what>``, with flat data:

===========  ==================================================  ===========================================
what         when                                                fields besides ``mesh`` and ``id``
===========  ==================================================  ===========================================
link-down    the watcher lost links, or relays forward nothing   ``neighbours`` that are new in trouble,
                                                                 ``down``: all that are in trouble now
link-up      the watcher has links back                          ``neighbours`` that are back, ``down``
stale        no watcher runs, and data was unanswered for 11 s   as link-down
recovered    no watcher runs, and the peer answers again         as link-up
drift        the node differs from its view in two looks, or     ``changes``: lines, as of ``wgmesh.diff``
             has other addresses than it published
===========  ==================================================  ===========================================

What lasts is told again each minute; where nothing changes, nothing is said. Example::

    salt/beacon/web1/wgmesh/link-down
    {"id": "web1", "mesh": "wg0", "neighbours": ["relay-fra1"], "down": ["relay-fra1"]}

Where no watcher runs, the routes leave a stale link, too, and come back to it when it recovered.

An event is a hint to look: the master asks the node itself before it believes anything.
"""

from saltext_wgmesh.minion import signals
from saltext_wgmesh.minion.host import Host

__virtualname__ = "wgmesh"


def __virtual__():
    return __virtualname__


def validate(config):
    """
    Return whether the configuration can be used, and why not.
    """
    if not isinstance(config, list) or not all(isinstance(entry, dict) for entry in config):
        return False, "the configuration of the beacon wgmesh must be a list of mappings, as in '- interval: 1'"
    return True, "Valid beacon configuration"


def beacon(config):
    """
    Return what changed since the last call: one event for each mesh and kind of news, none if nothing did.
    """
    return signals.MEMORY.look(Host())
