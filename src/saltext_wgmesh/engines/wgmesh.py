"""
Keep this node's watcher running where no systemd does.

.. code-block:: yaml

    engines:
      - wgmesh: {}

The formula sets it up. The watcher is a program of its own: it goes on while the minion is stopped or upgraded.
"""

import logging
import time

from saltext_wgmesh.core.errors import WgmeshError
from saltext_wgmesh.minion import store, watching
from saltext_wgmesh.minion.host import Host

log = logging.getLogger(__name__)

__virtualname__ = "wgmesh"

EVERY = 1
"""Seconds between two looks."""


def __virtual__():
    return __virtualname__


def start():
    """
    Start a watcher whenever none runs and this node is in a mesh.
    """
    while True:
        try:
            if store.meshes(Host()) and watching.running(Host()) is None:
                watching.start(Host())
        except (WgmeshError, OSError) as error:
            log.error("wgmesh: %s", error)
        time.sleep(EVERY)
