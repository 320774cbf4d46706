"""The size and the shape of the source, as text: ``python -m tests.figures [ROOT]``.

ROOT is the folder of a checkout, by default this one, so that two trees can be compared. None of its code is run.
"""

from __future__ import annotations

import ast
import io
import re
import statistics
import sys
import tokenize
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

from tests.house import names, plain_values, prose

PACKAGE = "saltext_wgmesh"
SIDES = ("core", "minion", "master")
Graph = Mapping[str, frozenset[str]]
"""Unit → the units that it imports. A unit is a module or a sub-package that stands directly in its side's folder."""


def report(root: Path) -> str:
    """All figures of the checkout *root*, as lines of text."""
    package = root / "src" / PACKAGE
    lines = [
        *_sizes(package),
        *_plain_values(package),
        *_wording(root, package),
        *_names(package),
        *_tests(root / "tests"),
    ]
    for side in SIDES:
        if (package / side).is_dir():
            lines += _shape(side, unit_imports(package, side))
    return "\n".join(lines)


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function from its first statement to its last, without signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def unit_imports(package: Path, side: str) -> Graph:
    """Which units of *side* import which others of it. Imports within one unit are left out."""
    modules = {_dotted(package, path): path for path in names.modules(package / side)}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        imported = graph.setdefault(_unit(module), set())
        for target in _imported(path, modules.keys()):
            imported.add(_unit(target))
    return {unit: frozenset(graph[unit] - {unit, ""}) for unit in sorted(graph.keys() - {""})}


def layers(graph: Graph) -> list[list[str]]:
    """The units in layers, lowest first: each imports lower layers only. Units of a cycle are in no layer."""
    found: list[list[str]] = []
    placed: set[str] = set()
    while layer := [unit for unit, imported in graph.items() if unit not in placed and imported <= placed]:
        found.append(layer)
        placed.update(layer)
    return found


def _sizes(package: Path) -> Iterator[str]:
    lengths = {path: len(path.read_text().splitlines()) for path in names.modules(package)}
    # An empty __init__.py would lower the median, and says nothing.
    lengths = {path: length for path, length in lengths.items() if length}
    bodies = {
        f"{path.relative_to(package)}:{node.lineno} {node.name}": body_lines(node)
        for path in lengths
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    files = {str(path.relative_to(package)): length for path, length in lengths.items()}
    yield f"files: {_spread(files)} lines"
    yield f"functions: {_spread(bodies)} lines, without signature and docstring"
    commented = sum(_commented(path) for path in lengths)
    total = sum(lengths.values())
    yield f"comments: {commented} of {total} lines ({commented / total:.1%}) have one"


def _plain_values(package: Path) -> Iterator[str]:
    found = plain_values.untyped_returns(package)
    others = sum(not plain_values.writes_record(function) for function in found)
    yield f"functions that return {plain_values.UNTYPED}: {len(found)}, of which other than as_dict: {others}"


def _wording(root: Path, package: Path) -> Iterator[str]:
    documents = prose.documents(root, ("README.md", "docs"), (".md",))
    for title, paths in (("source", names.modules(package)), ("README and docs", documents)):
        texts = [text for path in paths for text in prose.texts(path)]
        words = sum(len(text.text.split()) for text in texts)
        offences = sum(len(list(prose.offences(text))) for text in texts)
        share = 1000 * offences / max(words, 1)
        yield f"wording of {title}: {offences} offences in {words} words ({share:.1f} per 1,000)"


def _names(package: Path) -> Iterator[str]:
    defined = names.defined_in(package)
    twice = {name: where for name, where in defined.items() if len(where) > 1}
    yield f"public names: {len(defined)}, of which in two modules or more: {len(twice)}"
    yield from (f"  {name}: {', '.join(where)}" for name, where in twice.items())


def _tests(folder: Path) -> Iterator[str]:
    found = {
        f"{path.relative_to(folder)}:{node.lineno} {node.name}": len(node.name.split("_")) - 1
        for path in names.modules(folder)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    if found:
        yield f"names of tests: {_spread(found)} words"


def _shape(side: str, graph: Graph) -> Iterator[str]:
    stack = layers(graph)
    count = sum(len(imported) for imported in graph.values())
    yield f"{side}: {len(graph)} units in {len(stack)} layers, {count} imports between them"
    for height, layer in reversed(list(enumerate(stack, start=1))):
        yield f"  {height}: {', '.join(layer)}"
    if cycle := sorted(graph.keys() - {unit for layer in stack for unit in layer}):
        yield f"  in or above a cycle: {', '.join(cycle)}"
    if any(imported for imported in graph.values()) and len(graph) <= 15:
        yield from (f"  {unit} -> {', '.join(sorted(imported))}" for unit, imported in graph.items() if imported)


def _spread(values: Mapping[str, int]) -> str:
    ordered = sorted(values.values())
    largest = max(values, key=lambda name: values[name])
    p90 = ordered[int(len(ordered) * 0.9)]
    return f"{len(ordered)}, median {statistics.median(ordered):g}, p90 {p90}, max {ordered[-1]} ({largest})"


def _commented(path: Path) -> int:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    return len({token.start[0] for token in tokens if token.type == tokenize.COMMENT})


def _dotted(package: Path, path: Path) -> str:
    return re.sub(r"/__init__$", "", path.relative_to(package).with_suffix("").as_posix()).replace("/", ".")


def _unit(module: str) -> str:
    """The unit of a module, as ``planning`` of ``core.planning.views``; empty for the side's own ``__init__``."""
    return module.split(".")[1] if "." in module else ""


def _imported(path: Path, modules: Set[str]) -> Iterator[str]:
    """The modules among *modules* that the file *path* imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            candidates = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            candidates = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        else:
            continue
        known = [name.removeprefix(f"{PACKAGE}.") for name in candidates if name.startswith(f"{PACKAGE}.")]
        yield from (name for name in known if name in modules)


if __name__ == "__main__":
    print(report(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]))
