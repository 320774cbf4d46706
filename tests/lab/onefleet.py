"""One fleet, the demo's, for all scenarios below one folder: the fixtures of their conftest."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest

from .conftest import running
from .demo.run import MESH, PRINTER, networks, policy
from .demo.topology import DEMO
from .drill import evidence, whole
from .lab import Lab
from .mesh import Mesh, failures

POLICY = policy()


@pytest.fixture(scope="package")
def fleet(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A master with the demo's policy, and minions that all answer."""
    folder = request.path.parent.parent
    with running(folder, DEMO, f"{folder.name}-{os.getpid()}") as lab:
        lab.salt.set_policy(POLICY)
        lab.salt.start()
        yield lab


@pytest.fixture(scope="package")
def fabric(fleet: Lab) -> Mesh:
    """The demo's mesh, as one command made it."""
    mesh = Mesh(lab=fleet, name=MESH, networks=tuple(networks(POLICY)), members=DEMO.minions, lan=PRINTER)
    assert failures(mesh.apply(), DEMO.minions) == []
    try:
        mesh.settle()
    except AssertionError as error:
        error.add_note(evidence(mesh))
        raise
    return mesh


@pytest.fixture(scope="module")
def mesh(fabric: Mesh) -> Mesh:
    """The same; whatever an earlier scenario did to it is over and forgotten."""
    whole(fabric)
    return fabric


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed shows what the nodes and the master held for true."""
    report = yield
    if report.failed and isinstance(fabric := item.funcargs.get("fabric"), Mesh):
        report.sections.append(("what the mesh believed", evidence(fabric)))
    return report
