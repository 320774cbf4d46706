"""
Keep this node's watcher running if there is no systemd.

.. versionadded:: 0.1.0

.. code-block:: yaml

    engines:
      - wgmesh: {}

The formula configures it. The watcher is a separate process: it keeps running while the minion is stopped or upgraded.
"""

import logging
import time

from saltext_wgmesh import supported
from saltext_wgmesh.core.errors import WgmeshError
from saltext_wgmesh.minion.state import store
from saltext_wgmesh.minion.system.host import Host
from saltext_wgmesh.minion.watcher import service

log = logging.getLogger(__name__)

__virtualname__ = "wgmesh"

EVERY = 1
"""Seconds between two checks."""


def __virtual__():
    return supported.virtual(__opts__, __virtualname__)


def start():
    """
    Start a watcher whenever this node is in a mesh and no watcher runs.

    Errors are logged, and the next check tries again.
    """
    while True:
        try:
            if store.meshes(Host()) and service.running_version(Host()) is None:
                service.ensure_running(Host())
        except (WgmeshError, OSError) as error:
            log.error("wgmesh: the watcher was not started: %s", error)
        time.sleep(EVERY)
