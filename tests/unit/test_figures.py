"""The figures of a tree, on a tree small enough to count by hand."""

from __future__ import annotations

import ast

import pytest

from tests import figures


@pytest.fixture
def package(tmp_path):
    """A core of a package ``planning`` with two modules, above ``model``, above ``errors``."""
    package = tmp_path / "src" / "saltext_wgmesh"
    (package / "core" / "planning").mkdir(parents=True)
    for name, text in {
        "core/__init__.py": "",
        "core/errors.py": "class MeshError(Exception):\n    pass  # nothing to add\n",
        "core/model.py": "from saltext_wgmesh.core import errors\n\n\ndef view():\n    return 1\n",
        "core/planning/__init__.py": "",
        "core/planning/views.py": "from saltext_wgmesh.core.model import View\n",
        "core/planning/planner.py": "import saltext_wgmesh.core.planning.views, saltext_wgmesh.core.errors\n",
    }.items():
        (package / name).write_text(text)
    return package


def test_units_import_other_units_only(package):
    """A sub-package is one unit: what its modules import of each other does not count."""
    assert figures.unit_imports(package, "core") == {
        "errors": frozenset(),
        "model": {"errors"},
        "planning": {"model", "errors"},
    }


def test_layers_start_with_no_imports(package):
    """Each unit stands one layer above the highest that it imports, and a unit of a cycle in none."""
    graph = figures.unit_imports(package, "core")
    assert figures.layers(graph) == [["errors"], ["model"], ["planning"]]
    assert figures.layers({"a": frozenset("b"), "b": frozenset("a"), "c": frozenset()}) == [["c"]]


def test_function_length_excludes_its_docstring():
    """Signature and docstring are no work that a reader has to follow."""
    function = ast.parse('def f(\n    a,\n):\n    """Doc.\n\n    More.\n    """\n    a += 1\n\n    return a\n').body[0]
    assert figures.body_lines(function) == 3


def test_report_counts_lines_and_comments(package, tmp_path):
    """The report gives files without the empty ones, and the share of lines with a comment."""
    lines = figures.report(tmp_path).splitlines()
    assert "files: 4, median 1.5, p90 5, max 5 (core/model.py) lines" in lines
    assert "comments: 1 of 9 lines (11.1%) have one" in lines
    assert "core: 3 units in 3 layers, 3 imports between them" in lines


def test_report_counts_untyped_returns(package, tmp_path):
    """Plain values count also within another type, and the writer of a record's plain form is no offence."""
    (package / "core" / "model.py").write_text(
        "def as_dict() -> dict[str, Any]: ...\n"
        "def rows() -> list[dict[str, Any]]: ...\n"
        "def names() -> dict[str, str]: ...\n"
    )
    lines = figures.report(tmp_path).splitlines()
    assert "functions that return dict[str, Any]: 2, of which other than as_dict: 1" in lines
