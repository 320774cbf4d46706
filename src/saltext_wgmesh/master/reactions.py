"""What the reactor files say: call the runner, or while it runs, leave it word.

The call would leave the same word, and takes a hundred times as long, in the process in which the run goes on and in
which one event waits for the other: so neither a relay's death, of which many tell at once, nor whoever fires a
hundred events a second slows down the run that is under way.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from saltext_wgmesh.master import inventory
from saltext_wgmesh.master.gate import Gate, Word

MOST_SUSPECTS = 16
"""More are found by asking."""


def converge(opts: dict[str, Any], **names: object) -> dict[str, Any]:
    """The reaction that asks for a converge with these *names* as texts, whatever an event gave for them; an empty one
    if whoever runs was told. *names* are parameters of the runner's function."""
    texts = {key: _suspects(value) if key == "suspects" else str(value) for key, value in names.items()}
    if Gate(folder(opts)).pass_on(*words(opts, **texts)):
        return {}
    args = [{"args": [{key: text} for key, text in texts.items()]}] if texts else []
    return {"wgmesh_converge": {"runner.wgmesh.converge": args}}


def words(
    opts: dict[str, Any],
    *,
    node: object = None,
    hint: object = None,
    started: object = None,
    drifted: object = None,
    suspects: object = None,
) -> list[Word]:
    """The gate's words for what the runner is called with. Each is a file until a run takes it: names that somebody
    makes up, or too many of them, must not fill the disk."""
    named = [("again", node), ("hints", hint), ("started", started), ("drifted", drifted)]
    named += [("suspects", name) for name in str(suspects or "").split(",", MOST_SUSPECTS)[:MOST_SUSPECTS]]
    return [(kind, name) for kind, name in named if isinstance(name, str) and inventory.is_accepted(opts, name)]


def folder(opts: dict[str, Any]) -> Path:
    """Where the master's gate is."""
    return Path(opts["cachedir"]) / "wgmesh"


def _suspects(value: object) -> str:
    listed = value if isinstance(value, Iterable) and not isinstance(value, dict) else ()
    return ",".join(map(str, listed))
