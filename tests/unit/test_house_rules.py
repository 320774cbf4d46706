"""The rules that CONTRIBUTING.md states and a program can check."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.house import docstrings, names, plain_values, prose

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "src" / "saltext_wgmesh"
SHARED_NAMES = REPOSITORY / "tests" / "house" / "shared_names.json"
"""Name → why two modules may define it."""
UNTYPED_RETURNS = REPOSITORY / "tests" / "house" / "untyped_returns.json"
"""Function → why it may return plain values though it is no record's ``as_dict``."""
MAX_LINES = 400
MAX_WORDS = 8
"""Words of a test's name after ``test_``."""
WRITTEN = ("src", "README.md", "CONTRIBUTING.md", "SECURITY.md", "docs", "reactor", "states", "pillar-examples")
SUFFIXES = (".py", ".md", ".sls", ".conf")
CHANGELOG_KINDS = ("added", "changed", "deprecated", "removed", "fixed", "security")


def test_public_name_has_one_module():
    """A public name is defined in one module of the package, unless ``shared_names.json`` says why it is in two."""
    shared = json.loads(SHARED_NAMES.read_text())
    twice = names.defined_twice(PACKAGE)
    assert {name: where for name, where in twice.items() if name not in shared} == {}


def test_shared_name_is_still_shared():
    """The list of exceptions is short: a name that one module alone defines by now leaves it."""
    shared = json.loads(SHARED_NAMES.read_text())
    assert sorted(shared.keys() - names.defined_twice(PACKAGE).keys()) == []


def test_untyped_dict_is_returned_at_edge_only():
    """Other values are records. ``untyped_returns.json`` has the exceptions, none of which is out of date."""
    found = plain_values.untyped_returns(PACKAGE)
    others = {function for function in found if not plain_values.writes_record(function)}
    assert sorted(others) == sorted(json.loads(UNTYPED_RETURNS.read_text()))


def test_source_file_has_limited_length():
    """No module of the package is longer than MAX_LINES lines."""
    lengths = {path.relative_to(PACKAGE): len(path.read_text().splitlines()) for path in names.modules(PACKAGE)}
    assert {str(path): lines for path, lines in lengths.items() if lines > MAX_LINES} == {}


def test_text_has_no_banned_wording():
    """Docstrings, comments, messages and documents keep to the words of ``tests/house/prose.py``."""
    paths = prose.documents(REPOSITORY, WRITTEN, SUFFIXES)
    offences = [line for path in paths for text in prose.texts(path) for line in prose.offences(text)]
    # No comparison: pytest would spend a minute on the difference of a long list and an empty one.
    assert not offences, "\n".join(offences)


def test_test_names_are_short():
    """A test's name has at most MAX_WORDS words, and its subject is a noun."""
    offences = [
        where
        for where, name in _tests()
        if len(name.split("_")) > MAX_WORDS or re.match("(who|whoever|what|nobody)_", name)
    ]
    assert not offences, "\n".join(offences)


@pytest.mark.parametrize("folder", docstrings.WITH_EXAMPLE)
def test_salt_function_has_cli_example(folder):
    """Each execution and runner function shows how it is called."""
    assert docstrings.missing_examples(PACKAGE / folder) == []


@pytest.mark.parametrize("folder", docstrings.DOCUMENTED)
def test_salt_function_describes_each_parameter(folder):
    """Each parameter of an execution, runner or state function has a line of its own in the docstring."""
    assert docstrings.missing_parameters(PACKAGE / folder) == []


@pytest.mark.parametrize("folder", docstrings.DOCUMENTED)
def test_salt_function_has_first_version(folder):
    """Each execution, runner and state function, or its module, says since which version it is there."""
    assert docstrings.missing_versions(PACKAGE / folder) == []


def test_changelog_fragment_has_known_kind():
    """A fragment is called ``<name>.<kind>.md``, so that towncrier finds it."""
    fragments = [path.name for path in (REPOSITORY / "changelog").iterdir() if path.name != "README.md"]
    assert [name for name in fragments if name.split(".")[-2:] not in [[kind, "md"] for kind in CHANGELOG_KINDS]] == []


def test_commit_hooks_have_pinned_versions():
    """A commit hook and ``make check`` run the same version of a tool."""
    lines = (REPOSITORY / "constraints" / "check.txt").read_text().splitlines()
    pinned = dict(line.partition(";")[0].split("==") for line in lines)
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
    tools = {"ruff-pre-commit": "ruff", "codespell": "codespell"}
    found = {tools[hook["repo"].rpartition("/")[2]]: hook["rev"] for hook in hooks if hook["repo"] != "local"}
    assert found == {tool: f"v{pinned[tool]}" for tool in tools.values()}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It takes no more than 2 ms.", []),
        ("The node sends no\nmore.", ["file:1: 'no more': write no longer"]),
        ("Relays first.\nWho is down waits.", ["file:2: a statement opens with 'Who': begin with a noun"]),
        ("It waits. Nobody asks.", ["'Nobody'", "'. Nobody'"]),
        ("- What holds is kept.", ["'- What'"]),
        ("What does a relay do?", []),
        ("By the schedule, each minute.", ["'By'"]),
    ],
)
def test_prose_check_finds_offence(text, found):
    """The check of the words itself: what it finds, and what it lets pass."""
    offences = list(prose.offences(prose.Text(path=Path("file"), line=1, text=text)))
    assert len(offences) == len(found)
    assert all(part in offence for part, offence in zip(found, offences, strict=True))


def test_prose_check_reads_comments_and_strings(tmp_path):
    """Comments that follow each other are one text, and a message of the program may open as it likes."""
    path = tmp_path / "module.py"
    path.write_text('"""Doc.\n\nWho reads."""\n# It does not\n# in\n# vain.\nTITLE = "Who"\nkeep_anew = 1\n')
    offences = [line.removeprefix(f"{path}:") for text in prose.texts(path) for line in prose.offences(text)]
    assert offences == [
        "3: a statement opens with 'Who': begin with a noun",
        "5: 'in vain': write without an answer",
    ]


def test_name_check_counts_definitions_alone(tmp_path):
    """An imported name is not defined, and a private one is not public."""
    (tmp_path / "a.py").write_text("from b import shared\nLIMIT: int = 1\n_own = 2\ndef seen(): ...\n")
    (tmp_path / "b.py").write_text("shared = _own = LIMIT = 1\nclass Seen: ...\n")
    assert names.defined_twice(tmp_path) == {"LIMIT": ["a.py", "b.py"]}


def _tests() -> Iterator[tuple[str, str]]:
    """All tests: where each one stands, and its name after ``test_``."""
    for path in names.modules(REPOSITORY / "tests"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield f"{path.relative_to(REPOSITORY)}:{node.lineno} {node.name}", node.name.removeprefix("test_")
