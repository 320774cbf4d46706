"""What an earlier version wrote, put where the present one looks for it."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from saltext_wgmesh.core.model.view import View

LEDGER = Path(__file__).parents[1] / "recorded_ledger"
NODE = Path(__file__).parents[1] / "recorded_node"
FOLDER = "@FOLDER@"
"""In the recorded files of a node, the folder that held them."""
INPUTS = "inputs"
"""What the last run of the recorded master read."""
NEXT = "next"
"""What a further run of the recorded version planned."""
SECRET_NUMBERS = (0, 2, 4)
"""The throwaway secrets of wg0, by epoch."""
FORMER_VIEW_KEYS = {"drained_relays": "drained", "activate_key": "turn_to"}
FORMER_PEER_KEYS = {"psk_ids": "preshared"}
PRESHARED_KEY = base64.b64encode(bytes([101]) * 32).decode()
"""The only preshared key of the recorded node."""


class Cache(Protocol):
    """As much of ``salt.cache.Cache`` as recording a value takes."""

    def store(self, bank: str, key: str, data: Any) -> None:
        """*key* of *bank* has the value *data*."""


def fill_cache(cache: Cache) -> None:
    """Store the recorded ledger in *cache*."""
    for path in sorted(LEDGER.glob("*.json")):
        if path.stem not in (INPUTS, NEXT):
            for key, value in recorded(path.stem).items():
                cache.store(f"wgmesh/{path.stem}", key, value)


def recorded(bank: str) -> dict[str, Any]:
    """Return the recorded values of *bank*, or of INPUTS or NEXT, by key."""
    found: dict[str, Any] = json.loads((LEDGER / f"{bank}.json").read_text())
    return found


def throwaway_secret(number: int) -> str:
    """Return the text of a secret that the recorded master drew."""
    return base64.b64encode(hashlib.sha256(f"throwaway {number}".encode()).digest()).decode()


def former_view(view: View) -> dict[str, Any]:
    """Return the plain form of *view* as schema 3 has it."""
    raw = _renamed(view.as_dict(), FORMER_VIEW_KEYS)
    interfaces = [{**i, "peers": [_renamed(p, FORMER_PEER_KEYS) for p in i["peers"]]} for i in raw["interfaces"]]
    return {**raw, "interfaces": interfaces, "schema": 3}


def as_recorded(view: View) -> View:
    """Return *view* without what no version of then gave to nodes: more than one address of a renumbered peer."""
    interfaces = (replace(i, peers=tuple(replace(p, other_addresses=()) for p in i.peers)) for i in view.interfaces)
    return replace(view, interfaces=tuple(interfaces))


def former_digest(view: View) -> str:
    """Return the digest that *view* has in schema 3."""
    text = json.dumps(former_view(view), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _renamed(raw: dict[str, Any], keys: dict[str, str]) -> dict[str, Any]:
    return {keys.get(name, name): value for name, value in raw.items()}


def lay_out_node(folder: Path) -> None:
    """Write the recorded node's files below *folder*, with their modes; keys are throwaway ones."""
    for name, mode in json.loads((NODE / "files.json").read_text()).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_content(name).replace(FOLDER, str(folder)))
        path.chmod(int(mode, 8))


def _content(name: str) -> str:
    recorded = NODE / name
    if recorded.exists():
        return recorded.read_text()
    if name.endswith(".lock"):
        return ""
    if "/preshared/" in name:
        return f"{PRESHARED_KEY}\n"
    return private_key(1 if name.endswith(".next") else 0)


def private_key(number: int) -> str:
    """Return a throwaway private key as a key file has it: 0 was the node's first, 1 is the next."""
    return base64.b64encode(hashlib.sha256(f"throwaway key {number}".encode()).digest()).decode() + "\n"
