"""What Salt's users read with ``sys.doc``: each function has an example of its call, and says what its parameters mean.

``python -m tests.house.docstrings`` checks all functions and exits with 1 if one lacks something.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "saltext_wgmesh"
WITH_EXAMPLE = ("modules", "runners")
"""Loader folders whose functions a user calls on a command line."""
DOCUMENTED = ("modules", "runners", "states")


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    """The functions of the loader module *path* that Salt shows to users."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node


def missing_examples(folder: Path) -> list[str]:
    """The functions of *folder* without a ``CLI Example`` that calls them, as ``path: function``."""
    return [f"{path.name}: {f.name}" for path, f in _documented(folder) if not _has_example(f)]


def missing_parameters(folder: Path) -> list[str]:
    """The parameters of functions of *folder* without a line in the docstring, as ``path: function(parameter)``."""
    return [
        f"{path.name}: {f.name}({name})"
        for path, f in _documented(folder)
        for name in _parameters(f)
        if not re.search(rf"^{name}(?: \(.*\))?\n +\S", ast.get_docstring(f) or "", re.MULTILINE)
    ]


def missing_versions(folder: Path) -> list[str]:
    """The functions of *folder* of which neither the function nor its module says ``versionadded``."""
    return [
        f"{path.name}: {f.name}"
        for path, f in _documented(folder)
        if ".. versionadded::" not in (ast.get_docstring(ast.parse(path.read_text())) or "")
        and ".. versionadded::" not in (ast.get_docstring(f) or "")
    ]


def main() -> int:
    """Print what is missing, one line each. The exit status: 1 if something is."""
    missing = [f"{line}: no CLI Example" for name in WITH_EXAMPLE for line in missing_examples(PACKAGE / name)]
    missing += [f"{line}: not described" for name in DOCUMENTED for line in missing_parameters(PACKAGE / name)]
    print(*missing, sep="\n", end="\n" if missing else "")
    return 1 if missing else 0


def _documented(folder: Path) -> Iterator[tuple[Path, ast.FunctionDef]]:
    return ((path, f) for path in sorted(folder.glob("*.py")) for f in functions(path))


def _parameters(function: ast.FunctionDef) -> list[str]:
    arguments = function.args
    return [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]


def _has_example(function: ast.FunctionDef) -> bool:
    # A function whose name would hide a builtin or a module is called by an alias, without the suffix.
    called = rf"\bwgmesh\.{function.name.removesuffix('_view')}"
    example = (ast.get_docstring(function) or "").partition("CLI Example:\n\n.. code-block:: bash\n\n")[2]
    return re.search(called, example) is not None


if __name__ == "__main__":
    sys.exit(main())
