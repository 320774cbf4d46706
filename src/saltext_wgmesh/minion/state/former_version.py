"""Read what the former version of this package left on the node. Everything that knows its names is here.

An upgraded node must find the view that it runs, an apply that died, and the view that it rolled back. Files are read
under both names and written under the new one; the first write or removal deletes the former file.

Digests of the former version cover the plain form of its views, which has other keys. So a record of a rolled-back view
matches no view of this version: the node tries that view once more, and rolls it back again if it still fails.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.core.model.view_migration import migrate_view
from saltext_wgmesh.minion.system import files

PENDING_APPLY_FILE = "pending-apply.json"
ROLLED_BACK_FILE = "rolled_back.json"
_FORMER_NAMES = {PENDING_APPLY_FILE: "unjudged.json", ROLLED_BACK_FILE: "taken_back.json"}
_FORMER_GROUPS = {"no relay": "relay"}


def view(raw: Any) -> View:
    """Return the view that is stored on this node as *raw*. ViewError if it is none."""
    return View.from_dict(migrate_view(raw))


def read_either(path: Path) -> str | None:
    """Return the text of *path*, or else of the file that the former version has in its place; None without either."""
    text = files.read_file(path)
    return files.read_file(_former(path)) if text is None and path.name in _FORMER_NAMES else text


def write_present(path: Path, text: str) -> None:
    """Write *text* to *path*, and delete the file that the former version has in its place."""
    files.write_file(path, text)
    files.remove_file(_former(path))


def remove_both(path: Path) -> None:
    """Delete *path*, and the file that the former version has in its place."""
    files.remove_file(path)
    files.remove_file(_former(path))


def meshes_with(state_dir: Path, name: str) -> set[str]:
    """Return the meshes in whose folders *state_dir* has the file *name*, under either name."""
    return {path.parent.name for each in (name, _FORMER_NAMES.get(name, name)) for path in state_dir.glob(f"*/{each}")}


def pending_apply(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return *raw*, the content of PENDING_APPLY, with the keys of this version."""
    if "asked" not in raw:
        return raw
    return {
        "view": raw["view"],
        "requested_digest": raw["asked"],
        "old_view": raw["held"],
        "older_view": raw["previous"],
        "links_up": raw["up"],
        "master": raw["master"],
        "required": raw["awaited"],
        "required_any": {_group(words): nodes for words, nodes in raw["one_of"].items()},
        "boot_id": raw["boot"],
    }


def rolled_back(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return *raw*, the content of ROLLED_BACK, with the keys of this version."""
    return {"digest": raw["digest"], "reason": raw["why"], "at": raw["at"]} if "why" in raw else raw


def result(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return *raw*, the recorded result of one mesh's assignment, with the keys of this version."""
    return {("rolled_back" if key == "taken_back" else key): value for key, value in raw.items()}


def _former(path: Path) -> Path:
    return path.with_name(_FORMER_NAMES.get(path.name, path.name))


def _group(words: str) -> str:
    """Return the name of a group of neighbours; the former version has the words for its loss."""
    _, of_interface, interface = words.rpartition(" on ")
    return _FORMER_GROUPS.get(words, f"neighbour on {interface}" if of_interface else words)


def view_from_text(text: str) -> View:
    """Return the view in the JSON *text* of a file. ViewError or ValueError if it is none."""
    return view(json.loads(text))
