"""Scenarios: each folder below ``scenarios`` is one. Its tests are its steps, in the order of the file.

A failed step skips the rest of its scenario. ``WGMESH_LAB_KEEP=1`` keeps the lab of a failed scenario running.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from saltext_wgmesh.core.constants import RUN_DIR
from saltext_wgmesh.minion.watcher.process import LOG_FILE

from . import requirements
from .lab import Lab
from .machine import CommandFailed
from .topology import Topology

SCENARIOS = Path(__file__).with_name("scenarios")
LOG_LINES = "30"
"""Lines of each watcher's log that the report of a failed step shows."""
_failed: dict[Path, str] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests that run in a lab, since they need root."""
    for item in items:
        if SCENARIOS in item.path.parents:
            item.add_marker(pytest.mark.root)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip without root and after a failed step. Fail if a program is missing."""
    if SCENARIOS not in item.path.parents:
        return
    if os.geteuid() != 0:
        pytest.skip("needs root: network namespaces and WireGuard devices")
    if reason := requirements.obstacle():
        pytest.fail(reason, pytrace=False)
    if item.path.parent in _failed:
        pytest.skip(f"an earlier step failed: {_failed[item.path.parent]}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Record the first failed step of each scenario, and have its report show what the watchers did."""
    report = yield
    if report.failed:
        if item.path.parent not in _failed and (lab := getattr(item, "funcargs", {}).get("lab")):
            report.sections.append(("watchers", watcher_logs(lab)))
        _failed.setdefault(item.path.parent, item.name)
    return report


def watcher_logs(lab: Lab) -> str:
    """Return the newest lines of the watcher's log on each minion that runs."""
    lines = []
    for name in lab.underlay.topology.minions:
        with suppress(CommandFailed):
            log = lab.underlay[name].run("tail", "-n", LOG_LINES, f"{RUN_DIR}/{LOG_FILE}", check=False)
            lines += [f"{name}: {line}" for line in log.splitlines()]
    return "\n".join(lines)


@contextmanager
def running(folder: Path, topology: Topology, tag: str, **options: Any) -> Iterator[Lab]:
    """Yield a lab with its underlay, for the scenarios in *folder* or below it. A failed one is kept on request."""
    with Lab(topology, tag=tag, **options) as lab:
        lab.underlay.build()
        yield lab
        if any(folder == failed or folder in failed.parents for failed in _failed):
            lab.keep_folder = True
            lab.keep = bool(os.environ.get("WGMESH_LAB_KEEP"))


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Yield the lab of this scenario, with the underlay of the module's TOPOLOGY, without Salt.

    If the module has MASTER_OPTIONS, these override the master's configuration. With CONFIGURED = False the master
    gets no configuration for wgmesh.
    """
    options = {
        "master_options": getattr(request.module, "MASTER_OPTIONS", {}),
        "configured": getattr(request.module, "CONFIGURED", True),
    }
    scenario = request.path.parent
    with running(scenario, request.module.TOPOLOGY, f"{scenario.name}-{os.getpid()}", **options) as lab:
        yield lab


@pytest.fixture(scope="module")
def fleet(request: pytest.FixtureRequest, lab: Lab) -> Lab:
    """Return the same lab, with a master that has the module's POLICY, and minions that all answer.

    Minions in the module's LATER, if it has one, do not run yet.
    """
    later = getattr(request.module, "LATER", ())
    lab.salt.set_policy(request.module.POLICY)
    lab.salt.start([name for name in lab.salt.minions if name not in later])
    return lab
