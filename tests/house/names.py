"""Public top-level names of modules, and those that more than one module defines."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path


def modules(root: Path) -> Iterator[Path]:
    """All Python files below *root*, sorted."""
    return (path for path in sorted(root.rglob("*.py")) if "__pycache__" not in path.parts)


def public_names(module: ast.Module) -> set[str]:
    """The functions, classes and variables that *module* defines itself and that begin with no underscore.

    An imported name is not defined here, and neither is one below ``if TYPE_CHECKING``.
    """
    return {name for statement in module.body for name in _defined(statement) if not name.startswith("_")}


def defined_in(root: Path) -> dict[str, list[str]]:
    """Public name → the modules below *root* that define it, as paths relative to *root*."""
    found: dict[str, list[str]] = {}
    for path in modules(root):
        for name in public_names(ast.parse(path.read_text())):
            found.setdefault(name, []).append(path.relative_to(root).as_posix())
    return dict(sorted(found.items()))


def defined_twice(root: Path) -> dict[str, list[str]]:
    """The part of ``defined_in`` with two modules or more."""
    return {name: where for name, where in defined_in(root).items() if len(where) > 1}


def _defined(statement: ast.stmt) -> Iterator[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Assign(targets=targets):
            yield from (node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name
