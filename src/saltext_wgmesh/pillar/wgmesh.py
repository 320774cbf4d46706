"""
Give each minion its own views of the meshes, and nothing of anybody else's.

.. code-block:: yaml

    ext_pillar:
      - wgmesh: true

The pillar key ``wgmesh_view`` then holds, by mesh, the minion's view of the current generation, or the reason
why it has none; ``wgmesh_published`` the digest of the facts that the mine holds of it, so that it need not ask.
Both are read from the master's cache; nothing is planned here. Where views name preshared keys, ``wgmesh_preshared``
holds these, sealed to the node's own WireGuard key: whoever prints or keeps the pillar learns nothing.
"""

import salt.cache

from saltext_wgmesh.core import facts, names
from saltext_wgmesh.master import inventory, keyring
from saltext_wgmesh.master.ledger import Ledger

__virtualname__ = "wgmesh"


def __virtual__():
    return __virtualname__


def ext_pillar(minion_id, pillar, enabled=True):
    """
    Return the minion's views and the digest of its published facts; nothing of what is not there.
    """
    if not enabled:
        return {}
    cache = salt.cache.factory(__opts__)
    views = Ledger(cache).views(minion_id)
    published = inventory.mine_entry(cache, minion_id)
    return {
        **({names.VIEW_KEY: views} if views else {}),
        **({names.PRESHARED_KEY: boxes} if (boxes := keyring.delivery(__opts__, views)) else {}),
        **({names.PUBLISHED_KEY: facts.digest(published)} if published else {}),
    }
