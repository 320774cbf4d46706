"""Print the progress of a demo: step, progress, duration. Colours and live lines appear only on a terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

REFRESH = 0.2
"""Seconds between two redraws of the live line."""
REMIND = 5.0
"""Seconds after which a step that still runs prints a line, where there is no terminal."""


class Narrator:
    """``with narrator.step("build"): …`` for each of *steps* steps; ``say`` for everything else."""

    def __init__(self, steps: int, out: TextIO = sys.stdout) -> None:
        self.steps = steps
        self.out = out
        self.live = out.isatty()
        self.began = time.monotonic()
        self._number = 0

    def say(self, text: str = "") -> None:
        """Print the text."""
        print(text, file=self.out, flush=True)

    def good(self, text: str) -> str:
        """Return the text in the colour of success."""
        return self._colour("32", text)

    def bad(self, text: str) -> str:
        """Return the text in the colour of failure."""
        return self._colour("31", text)

    def dim(self, text: str) -> str:
        """Return the text in a dim colour."""
        return self._colour("2", text)

    @property
    def elapsed(self) -> float:
        """Seconds since the narrator was made."""
        return time.monotonic() - self.began

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Announce the step, show its progress, and print its result with the time that it took."""
        self._number += 1
        step = Step(self, f"[{self._number}/{self.steps}] {title}")
        step.begin()
        try:
            yield step
        except BaseException:
            step.end(self.bad("failed"))
            raise
        step.end(self.good("done"))

    def _colour(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.live else text


class Step:
    """One running step. ``progress`` sets how far it is."""

    def __init__(self, narrator: Narrator, title: str) -> None:
        self.narrator = narrator
        self.title = title
        self.far = ""
        self.began = time.monotonic()
        self._done = threading.Event()
        self._drawing = threading.Thread(target=self._draw, daemon=True)

    def begin(self) -> None:
        """Print the step's line."""
        if not self.narrator.live:
            self.narrator.say(f"{self.title} …")
        self._drawing.start()

    def progress(self, far: str) -> None:
        """Set how far the step is, in a few words such as ``5 of 9``."""
        self.far = far

    def end(self, how: str) -> None:
        """Print the step's result."""
        self._done.set()
        self._drawing.join()
        took = f"{time.monotonic() - self.began:.1f} s"
        if self.narrator.live:
            self._line(f"{self.title}  {how}  {self.far}  {self.narrator.dim(took)}\n")
        else:
            self.narrator.say("  " + "  ".join(part for part in (how, self.far, took) if part))

    def _draw(self) -> None:
        while not self._done.wait(REFRESH if self.narrator.live else REMIND):
            took = f"{time.monotonic() - self.began:.1f} s"
            if self.narrator.live:
                self._line(f"{self.title}  {self.far}  {took}")
            else:
                self.narrator.say(f"  … {self.far or 'running'}  {took}")

    def _line(self, text: str) -> None:
        self.narrator.out.write(f"\r\033[K{text}")
        self.narrator.out.flush()
