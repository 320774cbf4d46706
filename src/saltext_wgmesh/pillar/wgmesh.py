"""
Give each minion its own views of the meshes, and nothing of anybody else's.

.. code-block:: yaml

    ext_pillar:
      - wgmesh: true

The pillar key ``wgmesh_view`` then holds, by mesh, the minion's view of the current generation, or the reason
why it has none. It is read from the ledger; nothing is planned here.
"""

from saltext_wgmesh.core import names
from saltext_wgmesh.master.ledger import Ledger

__virtualname__ = "wgmesh"


def __virtual__():
    return __virtualname__


def ext_pillar(minion_id, pillar, enabled=True):
    """
    Return ``{"wgmesh_view": {mesh: view}}``, or nothing for a minion that no generation names.
    """
    views = Ledger(__opts__).views(minion_id) if enabled else {}
    return {names.VIEW_KEY: views} if views else {}
