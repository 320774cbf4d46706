"""Views that an earlier version stored, in the form that this version reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FORMER_VIEW_SCHEMA = 3
NEW_VIEW_KEYS = {"drained": "drained_relays", "turn_to": "activate_key"}
NEW_PEER_KEYS = {"preshared": "psk_ids"}


def migrate_view(raw: Any) -> Any:
    """Return *raw*, the plain form of a view, in the schema that ``View.from_dict`` reads.

    Only keys are renamed, so the view itself is the same. Its digest differs, since it covers the plain form. Keys
    that are no part of a view are kept. Anything but a view of schema 3 is returned unchanged, whatever it is: the
    caller lets ``View.from_dict`` judge it.
    """
    if not isinstance(raw, Mapping) or raw.get("schema") != FORMER_VIEW_SCHEMA:
        return raw
    renamed = _renamed(raw, NEW_VIEW_KEYS)
    interfaces = raw.get("interfaces")
    if isinstance(interfaces, (list, tuple)):
        renamed["interfaces"] = [_migrate_interface(interface) for interface in interfaces]
    # The number after the former one, not the current one: a later schema adds its own step after this.
    return {**renamed, "schema": FORMER_VIEW_SCHEMA + 1}


def _migrate_interface(raw: Any) -> Any:
    if not isinstance(raw, Mapping) or not isinstance(raw.get("peers"), (list, tuple)):
        return raw
    peers = [_renamed(peer, NEW_PEER_KEYS) if isinstance(peer, Mapping) else peer for peer in raw["peers"]]
    return {**raw, "peers": peers}


def _renamed(raw: Mapping[str, Any], new_keys: Mapping[str, str]) -> dict[str, Any]:
    return {new_keys.get(key, key): value for key, value in raw.items()}
