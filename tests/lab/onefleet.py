"""The demo's fleet, shared by all scenarios below one folder: the fixtures of their conftest."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest

from .conftest import running
from .demo.run import MESH, PRINTER, networks, policy
from .demo.topology import DEMO
from .disruption import evidence, whole
from .lab import Lab
from .mesh import Mesh, failures

POLICY = policy()


@pytest.fixture(scope="package")
def fleet(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Yield a lab with the demo's policy, in which all minions answer."""
    folder = request.path.parent.parent
    with running(folder, DEMO, f"{folder.name}-{os.getpid()}") as lab:
        lab.salt.set_policy(POLICY)
        lab.salt.start()
        yield lab


@pytest.fixture(scope="package")
def fabric(fleet: Lab) -> Mesh:
    """Return the demo's mesh, made by one command."""
    mesh = Mesh(lab=fleet, name=MESH, networks=tuple(networks(POLICY)), members=DEMO.minions, lan=PRINTER)
    assert failures(mesh.apply(), DEMO.minions) == []
    try:
        # Nodes that answer a push late are noticed by one more run, which takes its time on a slow machine.
        mesh.settle(deadline=150)
    except AssertionError as error:
        error.add_note(evidence(mesh))
        raise
    return mesh


@pytest.fixture(scope="module")
def mesh(fabric: Mesh) -> Mesh:
    """Return the same mesh, after all effects of earlier scenarios have ended."""
    whole(fabric)
    return fabric


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the reports of the nodes and of the master to a failed test."""
    report = yield
    if report.failed and isinstance(fabric := item.funcargs.get("fabric"), Mesh):
        report.sections.append(("reports of the mesh", evidence(fabric)))
    return report
