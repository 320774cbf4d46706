"""The name that a master gives to a new ledger, by which nodes tell two masters apart."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

MARK_FILE = ".mark"
"""File below ``wgmesh`` in the master's ``pki_dir``. No mesh has such a name, as that begins with a letter or digit."""
_MARK = re.compile(r"[0-9a-f]{8}")


def new_ledger_name(opts: Mapping[str, Any]) -> str:
    """Return the id of the master with these options, and the mark of its installation; empty if it has no id.

    Two masters may have one id, and even one key, but not one mark. The mark is not in Salt's cache: if the ledger is
    lost with the cache, the next one has the same name, and nodes follow it.
    """
    master = str(opts.get("id", ""))
    return f"{master} ({_mark(Path(opts['pki_dir'], 'wgmesh', MARK_FILE))})" if master else ""


def _mark(path: Path) -> str:
    """Return the mark in the file *path*, which is written first if it has none."""
    try:
        known = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        known = ""
    if _MARK.fullmatch(known):
        return known
    mark = secrets.token_hex(4)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(f"{mark}\n", encoding="ascii")
    except OSError as error:
        # The ledger itself keeps its name. Only a ledger after this one gets another name.
        log.warning("wgmesh: the mark of this master cannot be written to %s: %s", path, error)
    return mark
