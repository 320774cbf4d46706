"""
Give each minion its own views of the meshes, and nothing of any other minion.

.. versionadded:: 0.1.0

.. code-block:: yaml

    ext_pillar:
      - wgmesh: true

It sets up to three pillar keys. They are read from the master's cache; nothing is planned here.

``wgmesh_view``
    The minion's view of the current generation by mesh, or the reason why it has none.

``wgmesh_published``
    The digest of the minion's facts in the mine. With it, the minion need not ask the mine.

``wgmesh_preshared``
    The preshared keys that the views name, in boxes that only the node's own WireGuard key opens. A printed or cached
    pillar reveals no key.
"""

import salt.cache

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.inputs import facts_format
from saltext_wgmesh.master.records import inventory, psk_secrets
from saltext_wgmesh.master.records.ledger import Ledger

__virtualname__ = "wgmesh"


def __virtual__():
    return __virtualname__


def ext_pillar(minion_id, pillar, enabled=True):
    """
    Return the minion's views, its sealed preshared keys and the digest of its published facts, as far as there are any.

    minion_id
        The minion whose pillar is compiled.

    pillar
        The pillar so far; it is not used.

    enabled
        False: return nothing.
    """
    if not enabled:
        return {}
    cache = salt.cache.factory(__opts__)
    views = Ledger(cache).assignments(minion_id)
    published = inventory.mine_entry(cache, minion_id)
    return {
        **({constants.PILLAR_VIEWS: views} if views else {}),
        **({constants.PILLAR_PSKS: boxes} if (boxes := psk_secrets.sealed_psks(__opts__, views)) else {}),
        **({constants.PILLAR_FACTS_DIGEST: facts_format.facts_digest(published)} if published else {}),
    }
