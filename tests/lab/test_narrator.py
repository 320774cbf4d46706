"""The narrator's output, with and without a terminal."""

from __future__ import annotations

import io

import pytest

from .narrator import Narrator


class Terminal(io.StringIO):
    """Text that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def narrated(out: io.StringIO) -> str:
    narrator = Narrator(2, out)
    with narrator.step("count") as step:
        step.progress("3 of 3")
    with pytest.raises(ValueError), narrator.step("break"):
        raise ValueError
    return out.getvalue()


def test_output_without_terminal_is_plain():
    """Without a terminal there are plain lines, without colours and redrawn lines."""
    text = narrated(io.StringIO())
    assert [line.rstrip("0123456789. s") for line in text.splitlines()] == [
        "[1/2] count …",
        "  done  3 of",
        "[2/2] break …",
        "  failed",
    ]
    assert "\033" not in text
    assert "\r" not in text


def test_output_on_terminal_is_live():
    """On a terminal there are colours, and the line of a step is redrawn."""
    text = narrated(Terminal())
    assert "\r\033[K[1/2] count  \033[32mdone\033[0m  3 of 3  " in text
    assert "\r\033[K[2/2] break  \033[31mfailed\033[0m  " in text
