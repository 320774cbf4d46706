"""Words and sentence openings that the text of this project does without, and where they stand."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BANNED = {
    r"anew": "again",
    r"amid(st)?": "in, during",
    r"heed(s|ed|ing)?": "follow, respect",
    r"in vain": "without an answer",
    r"whom(ever)?": "name the node, relay or operator",
    r"whoever": "name the node, relay or operator",
    r"nobody": "no node, no relay, no operator",
    r"lest": "so that … not",
    r"meanwhile": "while …",
    r"no more(?! than)": "no longer",
    r"for one(?=[,;:).])": "for example",
    r"it is they who": "name the node, relay or operator",
}
"""Regular expression of a word, without regard to case → what to write in its place."""

# A question may begin with these words: it asks for the name that a statement owes.
_SUBJECT = r"(?:Who|Whoever|What|Nobody)(?= )(?![^.]*\?)"
_OPENINGS = (
    re.compile(rf"^[ \t]*(?:[-*>] |\d+\. )?(?:{_SUBJECT}|(?:Of|By) )", re.MULTILINE),
    re.compile(rf"[.;!?] {_SUBJECT}"),
)
_WORDS = {
    re.compile(r"\b" + word.replace(" ", r"\s+") + r"\b" * word[-1].isalpha(), re.IGNORECASE): instead
    for word, instead in BANNED.items()
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A piece of text of one file: a string, a comment of one or more lines, or a whole document."""

    path: Path
    line: int
    """The number of its first line, from 1."""
    text: str
    is_prose: bool = True
    """False: a string of the program. A message or a key need not be a sentence."""

    def line_at(self, position: int) -> int:
        """The number of the line in the file, from 1, in which the character at *position* stands."""
        return self.line + self.text.count("\n", 0, position)


def offences(text: Text) -> Iterator[str]:
    """What *text* has that it should not: one line each, with file, line number and what to write in its place."""
    for pattern, instead in _WORDS.items():
        for found in pattern.finditer(text.text):
            yield f"{text.path}:{text.line_at(found.start())}: {' '.join(found.group().split())!r}: write {instead}"
    for pattern in _OPENINGS if text.is_prose else ():
        for found in pattern.finditer(text.text):
            opening = found.group().strip()
            yield f"{text.path}:{text.line_at(found.end())}: a statement opens with {opening!r}: begin with a noun"


def texts(path: Path) -> Iterator[Text]:
    """All text of the file *path*: of a Python file its strings and comments, of any other file the whole."""
    source = path.read_text()
    if path.suffix == ".py" or source.startswith("#!py"):
        yield from _python_texts(path, source)
    elif path.suffix == ".md":
        yield Text(path=path, line=1, text=source)
    else:
        yield Text(path=path, line=1, text=re.sub(r"^([ \t]*)#+ ?", r"\1", source, flags=re.MULTILINE))


def documents(root: Path, folders: tuple[str, ...], suffixes: tuple[str, ...]) -> Iterator[Path]:
    """The files of *folders* (or files) below *root* whose names end in one of *suffixes*, sorted."""
    for folder in folders:
        place = root / folder
        found = [place] if place.is_file() else sorted(place.rglob("*"))
        yield from (p for p in found if p.suffix in suffixes and "__pycache__" not in p.parts)


def _python_texts(path: Path, source: str) -> Iterator[Text]:
    comment: list[str] = []
    last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        row = token.start[0]
        if token.type == tokenize.COMMENT:
            if comment and row != last + 1:
                yield Text(path=path, line=last - len(comment) + 1, text="\n".join(comment))
                comment = []
            comment.append(token.string.lstrip("#! "))
            last = row
        elif token.type in _STRINGS:
            is_prose = token.string.endswith('"""')
            yield Text(path=path, line=row, text=re.sub(r'^\w?"+|"+$', "", token.string), is_prose=is_prose)
    if comment:
        yield Text(path=path, line=last - len(comment) + 1, text="\n".join(comment))


# Since Python 3.12 the literal parts of an f-string are tokens of their own.
_STRINGS = (tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING))
