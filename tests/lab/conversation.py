"""A long TCP connection between two machines of the lab, and its result."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .machine import CommandFailed, Machine

_TALKER = (sys.executable, "-I", "-S", str(Path(__file__).with_name("talker.py")))
PORT = 7007


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The lines that one end heard from the other, on one connection, from its beginning to its end."""

    listener: str
    speaker: str
    sent: int
    """Lines that the speaker wrote."""
    heard: int
    """Lines that arrived, in order and whole unless *broke* says otherwise."""
    longest: float
    """Seconds of the longest silence between two lines."""
    at: float
    """The start of that silence, in seconds since the first line."""
    broke: str | None
    """The reason why the connection ended too early; None if it did not."""

    @property
    def stood(self) -> bool:
        """Whether the connection did not break and no line is missing."""
        return self.broke is None and 0 < self.sent == self.heard


class Conversation:
    """``with Conversation(…) as talk: …``. Afterwards ``talk.heard`` has one entry per direction."""

    def __init__(self, caller: Machine, listener: Machine, address: str, *, port: int = PORT) -> None:
        """*address* is the listener's."""
        self._caller, self._listener = caller, listener
        self._where = (address, str(port))
        self.heard: tuple[Heard, ...] = ()

    def __enter__(self) -> Conversation:
        self._ends = [self._began(self._listener, "listen")]
        self._ends.append(self._began(self._caller, "call"))
        return self

    def __exit__(self, *error: object) -> None:
        for end in self._ends:
            if end.stdin and not end.stdin.closed:
                end.stdin.close()
                end.stdin = None
        listened, called = (json.loads(end.communicate(timeout=60)[0]) for end in self._ends)
        names = (self._listener.name, self._caller.name)
        self.heard = (_heard(*names, listened, called), _heard(*names[::-1], called, listened))

    def _began(self, machine: Machine, role: str) -> subprocess.Popen[str]:
        process = machine.spawn(*_TALKER, role, *self._where)
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            for end in (*getattr(self, "_ends", ()), process):
                end.kill()
            raise CommandFailed(f"{machine.name}: no conversation: {process.communicate()[1].strip()[-500:]}")
        return process


def _heard(listener: str, speaker: str, listened: dict[str, object], spoke: dict[str, object]) -> Heard:
    broke = listened["broke"] or spoke["broke"] or ("lines out of order" if listened["wrong"] else None)
    return Heard(
        listener=listener,
        speaker=speaker,
        sent=int(str(spoke["sent"])),
        heard=int(str(listened["heard"])),
        longest=float(str(listened["longest"])),
        at=float(str(listened["at"])),
        broke=str(broke) if broke else None,
    )
