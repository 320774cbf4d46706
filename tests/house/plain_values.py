"""Functions that return plain values: dicts without a type for each key."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.house import names

UNTYPED = "dict[str, Any]"
"""The type of plain values, also as a part of another type."""


def untyped_returns(root: Path) -> list[str]:
    """The functions below *root* that return plain values, as ``module.py:name``, sorted."""
    return sorted(
        f"{path.relative_to(root).as_posix()}:{function.name}"
        for path in names.modules(root)
        for function in _functions(ast.parse(path.read_text()))
        if function.returns is not None and UNTYPED in ast.unparse(function.returns)
    )


def writes_record(function: str) -> bool:
    """Whether *function*, an entry of ``untyped_returns``, gives the plain form of one record."""
    return function.endswith("as_dict")


def _functions(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
