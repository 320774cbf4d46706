"""Nodes write facts without netaddr."""

from __future__ import annotations

import subprocess
import sys

LOADS_NODE_MODULES = """
import importlib, pkgutil, sys
sys.modules["netaddr"] = None
import saltext_wgmesh.minion
names = [f"saltext_wgmesh.{kind}.wgmesh" for kind in ("modules", "states", "beacons")]
names += [m.name for m in pkgutil.walk_packages(saltext_wgmesh.minion.__path__, "saltext_wgmesh.minion.")]
for name in names:
    importlib.import_module(name)
"""


def test_node_modules_load_without_netaddr() -> None:
    """All modules that run on a node can be imported where an import of netaddr fails."""
    done = subprocess.run([sys.executable, "-c", LOADS_NODE_MODULES], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
