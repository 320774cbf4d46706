"""The packages that are declared are those that are used, and constraints pin all that is installed."""

from __future__ import annotations

import ast
import configparser
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
import salt.version

REPOSITORY = Path(__file__).resolve().parents[2]
CONSTRAINTS = REPOSITORY / "constraints"
OWN = {"saltext_wgmesh", "tests", "bench"}
BY_IMPORT = {"yaml": "pyyaml", "saltfactories": "pytest-salt-factories"}
"""Module → the package that has it, where the names differ."""
WITH_PYTHON = {"pip", "setuptools", "wheel", "saltext-wgmesh"}
"""Packages that a venv has by itself, and this one."""
PROGRAMS = {"build"}
"""Packages of the tests that are run as programs."""


def canonical(name: str) -> str:
    """The name of a package as PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*path: str) -> set[str]:
    """The packages of one list in setup.cfg."""
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg")
    return {canonical(re.split(r"[<>=!~ ]", line)[0]) for line in config.get(*path).split("\n") if line.strip()}


def imported(folder: Path) -> set[str]:
    """The packages, other than Python's and our own, that modules below *folder* import."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(str(node.module).partition(".")[0])
    return {canonical(BY_IMPORT.get(name, name)) for name in names - sys.stdlib_module_names - OWN}


def pinned(*files: str) -> set[str]:
    """The packages that these constraints pin."""
    lines = [line for file in files for line in (CONSTRAINTS / file).read_text().split("\n") if "==" in line]
    return {canonical(line.partition("==")[0]) for line in lines}


def test_package_declares_exactly_its_imports():
    """Each package that the extension imports is declared, and each declared one is imported."""
    assert imported(REPOSITORY / "src") == declared("options", "install_requires")


def test_tests_declare_exactly_their_imports():
    """The same for the tests, beside the packages of the extension."""
    own = imported(REPOSITORY / "tests") - declared("options", "install_requires")
    assert own == declared("options.extras_require", "tests") - PROGRAMS


def test_constraints_pin_installed_packages():
    """No package of this environment has a version that another installation may not get."""
    release = salt.version.__version__.split(".")[0]
    installed = {canonical(found.metadata["Name"]) for found in metadata.distributions()}
    assert installed - WITH_PYTHON - pinned(f"salt-{release}.txt", "check.txt", "release.txt", "bench.txt") == set()


@pytest.mark.parametrize("release", ["3006", "3007", "3008"])
def test_declared_packages_are_pinned(release):
    """Each declared package has one version in the constraints of each Salt."""
    wanted = declared("options", "install_requires") | declared("options.extras_require", "tests")
    assert wanted - pinned(f"salt-{release}.txt", "check.txt") == set()


def test_matrix_has_classified_pythons():
    """Each Python of the classifiers is one that the tests run on."""
    pythons = re.findall(r"Python :: (3\.\d+)", (REPOSITORY / "setup.cfg").read_text())
    workflow = (REPOSITORY / ".github" / "workflows" / "lint.yml").read_text()
    matrix = re.search(r"python: \[(.*)\]", workflow)
    assert matrix
    assert re.findall(r"3\.\d+", matrix[1]) == pythons
