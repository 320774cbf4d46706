"""
Send the master an event when links of this node's WireGuard meshes go down or up, and when the node drifts from its
view.

.. versionadded:: 0.1.0

.. code-block:: yaml

    beacons:
      wgmesh:
        - interval: 1

The formula configures it. Each event has all changes of one mesh since the last call, under the tag
``salt/beacon/<minion id>/wgmesh/<kind>``, as flat data:

===========  ==================================================  ===========================================
kind         when                                                fields besides ``mesh`` and ``id``
===========  ==================================================  ===========================================
link-down    links went down, or relays became blackholes        ``neighbours`` that are newly down,
                                                                 ``down``: all that are down now
link-up      links are up again                                  ``neighbours`` that are up, ``down``
stale        no watcher runs, and data was unanswered for 11 s   as link-down
recovered    no watcher runs, and the peer answers again         as link-up
drift        the node differs from its view in two checks, or    ``changes``: lines as of ``wgmesh.diff``
             has other addresses than it published
===========  ==================================================  ===========================================

A state that lasts is reported again each minute. Without changes there is no event. Example::

    salt/beacon/web1/wgmesh/link-down
    {"id": "web1", "mesh": "wg0", "neighbours": ["relay-fra1"], "down": ["relay-fra1"]}

If no watcher runs, the beacon also moves the routes off a stale link, and back when the link has recovered.

An event is only a hint: the master asks the node itself before it changes anything.
"""

from saltext_wgmesh import supported
from saltext_wgmesh.minion.reporting import events
from saltext_wgmesh.minion.system.host import Host

__virtualname__ = "wgmesh"


def __virtual__():
    return supported.virtual(__opts__, __virtualname__)


def validate(config):
    """
    Return whether the configuration is valid, and if not, why.

    config
        The beacon's entry in the minion's configuration.
    """
    if not isinstance(config, list) or not all(isinstance(entry, dict) for entry in config):
        return False, "the configuration of the beacon wgmesh must be a list of mappings, as in '- interval: 1'"
    return True, "Valid beacon configuration"


def beacon(config):
    """
    Return the events since the last call: one for each mesh and kind, none if nothing changed.

    config
        The beacon's entry in the minion's configuration; it has no options beside Salt's own.
    """
    return events.process_source().poll(Host(command_timeout=events.POLL_COMMAND_TIMEOUT))
