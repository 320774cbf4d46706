"""The documents name commands, parameters, files and pages that exist."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from saltext_wgmesh.modules import wgmesh as module
from saltext_wgmesh.runners import wgmesh as runner

REPOSITORY = Path(__file__).parents[2]
SOURCE = REPOSITORY / "src" / "saltext_wgmesh"
PAGES = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md")))
RUNNER_CALL = re.compile(r"salt-run wgmesh\.(\w+)((?: [^\s`|#>]+)*)")
MODULE_CALL = re.compile(r"salt (?:'[^']+'|\w+) wgmesh\.(\w+)")
SOURCE_PATH = re.compile(r"`((?:core|minion|master)/[\w./]+\.py)`")
TEST_PATH = re.compile(r"`((?:unit|functional|integration|fuzz|lab)/[\w./]+\.py)`")
PAGE_LINK = re.compile(r"\]\(([^)#:]+)\)")

ids = [str(page.relative_to(REPOSITORY)) for page in PAGES]
each_page = pytest.mark.parametrize("page", PAGES, ids=ids)


@each_page
def test_documented_runner_calls_fit_their_signature(page: Path):
    """Every `salt-run wgmesh.<function>` exists, and takes the arguments that are shown; a mention may show none."""
    for function, arguments in RUNNER_CALL.findall(page.read_text()):
        signature = inspect.signature(getattr(runner, function))
        words = [word for word in arguments.split() if not word.startswith("--")]
        named = dict(word.split("=", 1) for word in words if "=" in word)
        signature.bind_partial(*(word for word in words if "=" not in word), **named)


@each_page
def test_documented_execution_functions_exist(page: Path):
    """Every `salt <target> wgmesh.<function>` exists under the name that Salt gives it."""
    alias = {shown: real for real, shown in module.__func_alias__.items()}
    for function in MODULE_CALL.findall(page.read_text()):
        assert callable(getattr(module, alias.get(function, function), None)), function


@each_page
def test_links_between_documents_lead_to_files(page: Path):
    """A relative link leads to a file or folder of this repository."""
    targets = [page.parent / link for link in PAGE_LINK.findall(page.read_text())]
    assert [str(target) for target in targets if not target.exists()] == []


@each_page
def test_documented_source_paths_exist(page: Path):
    """Every path of a module that stands in backquotes exists."""
    named = SOURCE_PATH.findall(page.read_text())
    assert [path for path in named if not (SOURCE / path).is_file()] == []


@each_page
def test_documented_test_paths_exist(page: Path):
    """Every path of a test that stands in backquotes exists, and has a test."""
    named = [REPOSITORY / "tests" / path for path in TEST_PATH.findall(page.read_text())]
    assert [str(path) for path in named if not (path.is_file() and "\ndef test_" in path.read_text())] == []


def test_each_bound_of_a_party_names_its_test():
    """Each row on what a party cannot do names a file of tests, or says why there is none."""
    text = (REPOSITORY / "docs" / "security.md").read_text()
    rows = text.partition("| party | can | cannot | shown by |\n")[2].partition("\n\n")[0].splitlines()[1:]
    shown = [row.removesuffix("|").rpartition("|")[2].strip() for row in rows]
    reasons = ("the same", "WireGuard admits", "no test: ")
    assert len(rows) > 10
    assert [
        row for row, by in zip(rows, shown, strict=True) if not (TEST_PATH.search(by) or by.startswith(reasons))
    ] == []
