"""The program that judges applies that died: ``python -m saltext_wgmesh.minion.judging MESH...``."""

from __future__ import annotations

import logging
import sys

from saltext_wgmesh.core.errors import WgmeshError
from saltext_wgmesh.minion import apply
from saltext_wgmesh.minion.host import Host

log = logging.getLogger(__name__)


def main(meshes: list[str]) -> int:
    """Each of *meshes* is as the apply that died would have left it; the exit status, 1 if one could not be judged."""
    status = 0
    for mesh in meshes:
        try:
            apply.judge(Host(), mesh)
        except (WgmeshError, OSError) as error:
            log.error("%s: %s", mesh, error)
            status = 1
    return status


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    sys.exit(main(sys.argv[1:]))
