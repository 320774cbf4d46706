"""One fleet for all scenarios of this folder. Each begins with a mesh without effects of earlier scenarios."""

from __future__ import annotations

import os

from ...onefleet import fabric, fleet, mesh, pytest_runtest_makereport

__all__ = ["fabric", "fleet", "mesh", "pytest_runtest_makereport"]

SLOW = (
    "address",
    "drain",
    "gateways",
    "interface",
    "killed",
    "links",
    "master_beyond",
    "port",
    "preshared",
    "roles",
    "rotation",
    "second_family",
    "single_relay",
    "rolled_back",
)
"""Scenarios that take minutes each: WGMESH_LAB_ALL=1 runs them too."""
collect_ignore = [] if os.environ.get("WGMESH_LAB_ALL") else [*SLOW]
