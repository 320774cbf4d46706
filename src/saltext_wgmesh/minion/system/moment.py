"""Moments by the clock that runs from the boot and is never set. Durations that outlive a process are measured so."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from saltext_wgmesh.minion.system import files
from saltext_wgmesh.minion.system.host import Host


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A moment of one boot."""

    boot_id: str
    at: float
    """Seconds of the monotonic clock."""

    def encode(self) -> str:
        """Return JSON text without line breaks; ``decode_moment`` is the inverse."""
        return json.dumps([self.boot_id, self.at])

    def age(self, host: Host) -> float | None:
        """Return the seconds since then; None if the moment is of another boot, or none that this boot has had."""
        age = time.monotonic() - self.at
        return age if self.boot_id == boot_id(host) and self.at >= 0 and age >= 0 else None


def decode_moment(text: str) -> Moment:
    """Return the moment that ``encode`` wrote. ValueError or TypeError for other text."""
    boot, at = json.loads(text)
    return Moment(boot_id=str(boot), at=float(at))


def present(host: Host) -> Moment:
    """Return the present moment."""
    return Moment(boot_id=boot_id(host), at=time.monotonic())


def boot_id(host: Host) -> str:
    """Return the id of the present boot (random(4), boot_id)."""
    return (files.read_file(host.boot_id) or "").strip()
