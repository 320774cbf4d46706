"""The README as steps: each command of its bash blocks and each file of its yaml blocks, in order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"```(\w*)")
REMARK = re.compile(r"\s+# .*")
PATH = re.compile(r"# (/\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One line of a bash block."""

    line: str
    """The line as in the README, with its remark."""
    number: int
    """Number of the line in the README, from 1."""

    @property
    def bare(self) -> str:
        """The command without its remark."""
        return REMARK.sub("", self.line)


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One yaml block."""

    path: str
    text: str
    number: int


Step = Command | File


def steps(readme: Path) -> list[Step]:
    """Return the steps of the README in order. ValueError for a block that is neither commands nor a file."""
    found: list[Step] = []
    for tag, number, body in _blocks(readme.read_text(encoding="utf-8").splitlines()):
        if tag == "bash":
            found += [Command(line=line, number=number + at) for at, line in enumerate(body) if line.strip()]
        elif tag == "yaml":
            found.append(_file(number, body))
        elif tag or any(line.startswith("salt") for line in body):
            raise ValueError(f"README, line {number}: tag the block as bash or yaml, or no test runs it")
    return found


def _blocks(lines: list[str]) -> list[tuple[str, int, list[str]]]:
    """Return tag, number of the first line, and lines of each fenced block."""
    blocks: list[tuple[str, int, list[str]]] = []
    inside = False
    for number, line in enumerate(lines, 1):
        fence = FENCE.fullmatch(line)
        if fence and not inside:
            blocks.append((fence[1], number + 1, []))
        elif not fence and inside:
            blocks[-1][2].append(line)
        inside ^= bool(fence)
    return blocks


def _file(number: int, body: list[str]) -> File:
    path = PATH.fullmatch(body[0]) if body else None
    if path is None:
        raise ValueError(f"README, line {number}: a yaml block begins with `# /path/of/the/file`")
    return File(path=path[1], text="".join(f"{line}\n" for line in body), number=number)
