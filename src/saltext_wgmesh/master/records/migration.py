"""Records of the ledger's schema 1, in schema 2.

Each record is migrated by itself when it is read, so an upgrade needs no step of its own and can't be interrupted.
Nothing is lost but the fingerprint of the last idle run: without it the first run plans, whatever else is unchanged.

Digests are kept as they are. They cover a view's plain form, whose keys are new, so the first run after an upgrade
finds that all digests differ. It publishes every view once more, unchanged but for its form. Nodes that apply it find
nothing to do. Until then an acknowledgement names the old form by its digest, which the node's record still has. So the
push order knows what the node runs.

A rollback that a node reported names an old digest as well. It blocks the push of that view until the first run has
published the new form. Then the node is asked to apply the view once more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from saltext_wgmesh.core.model.view_migration import migrate_view
from saltext_wgmesh.master.records import banks

FORMER_LEDGER_SCHEMA = 1
Raw = dict[str, Any]

_NEW_STAGES = {"ready": "prepare", "first": "first_relay", "most": "most_relays", "last": "last_relay"}
_NEW_TRANSITION_KEYS = {
    "homes": "previous_relays",
    "idle": "unrouted_relays",
    "pairs": "previous_direct_links",
    "places": "previous_sockets",
    "addresses": "dual_addresses",
    "moves": "gateway_moves",
    "fresh": "unproven_relays",
    "crossing": "role_changes",
}
_NEW_ROTATION_KEYS = {
    "wanted": "requested",
    "turns": "activated",
    "rests": "backed_off_until",
    "looked_at": "checked_at",
}
_NEW_OUTAGE_KEYS = {"by": "reporters", "good_since": "up_since", "times": "flaps"}
_NEW_HEALTH_KEYS = {"down": "down_nodes", "cut": "down_links", "resting": "recovering", "silent": "unresponsive"}


def migrate(bank: str, raw: Mapping[str, Any]) -> Raw | None:
    """Return the record *raw* of *bank* in schema 2; None if it is not of schema 1.

    The ledger then refuses it: a record of a later version may mean something that this version would destroy.
    """
    if raw.get("schema") != FORMER_LEDGER_SCHEMA:
        return None
    return _STEPS[bank]({key: value for key, value in raw.items() if key != "schema"})


def _unchanged(raw: Raw) -> Raw:
    return raw


def _head(raw: Raw) -> Raw:
    digests = raw["digests"]
    return {
        "generation": raw["generation"],
        "digests": digests,
        "without_view": {node: kind for node, digest in digests.items() if (kind := _kind(digest))},
        "allocations": _allocations(raw["register"]),
        "facts": raw["facts"],
        "published_at": raw["published_at"],
        "drained": raw.get("drained", []),
        "transition": _transition(raw.get("kept", {})),
        "rotation": _renamed(raw.get("rotation", {}), _NEW_ROTATION_KEYS),
        "psk_rollover": _psk_rollover(raw.get("secrecy", {})),
    }


def _kind(digest: str) -> str:
    """The kind of assignment without a view that a digest of schema 1 spelled out; empty for the digest of a view.

    Unplaced and excluded nodes had digests of one form. Both keep what they run, so either kind serves until the
    first run publishes the right one.
    """
    prefix, colon, _ = digest.partition(":")
    return {"reason": "excluded", "removed": "leave"}[prefix] if colon else ""


def _allocations(raw: Mapping[str, Any]) -> Raw:
    return _renamed(raw, {"numbers": "relay_numbers", "homes": "relays"})


def _transition(raw: Mapping[str, Any]) -> Raw:
    renamed = _renamed(raw, _NEW_TRANSITION_KEYS)
    if "gateway_moves" in renamed:
        moves = renamed["gateway_moves"].items()
        renamed["gateway_moves"] = {subnet: [old, new, _NEW_STAGES[stage]] for subnet, (old, new, stage) in moves}
    return renamed


def _psk_rollover(raw: Mapping[str, Any]) -> Raw:
    if not raw:
        return {}
    new_keys = {"stage": "epoch", "told": "notified"}
    return {
        "epochs": raw["stages"],
        "laggards": {node: _renamed(lag, new_keys) for node, lag in raw["lags"].items()},
    }


def _health(raw: Raw) -> Raw:
    # An empty mapping stands for a mesh without trouble.
    if not raw:
        return {}
    nodes = {node: _renamed(outage, _NEW_OUTAGE_KEYS) for node, outage in raw["nodes"].items()}
    links = [[one, other, _renamed(outage, _NEW_OUTAGE_KEYS)] for one, other, outage in raw["links"]]
    return {**_renamed(raw, _NEW_HEALTH_KEYS), "nodes": nodes, "links": links}


def _generation(raw: Raw) -> Raw:
    return {
        "policy": raw["policy"],
        "facts": raw["facts"],
        "allocations": _allocations(raw["register"]),
        "health": _health(raw.get("health", {})),
        "drained": raw.get("drained", []),
        "transition": _transition(raw.get("kept", {})),
        "activated_keys": raw.get("turns", []),
        "reasons": raw["reasons"],
        "published_at": raw["published_at"],
        "is_retired": raw.get("retired", False),
        "nodes": raw["nodes"],
    }


def _node(raw: Raw) -> Raw:
    # Digest and generation stand beside the keys of the view, and pass through unchanged.
    return {"meshes": {mesh: [migrate_view(entry) for entry in entries] for mesh, entries in raw["meshes"].items()}}


def _ack(raw: Raw) -> Raw:
    pending = raw.get("silent")
    return {
        "digests": raw["digests"],
        "at": raw["at"],
        "pending": pending
        and {
            "digests": pending["digests"],
            "tries": pending["tries"],
            "retry_at": pending["again_at"],
            "job": pending.get("job", ""),
            "error": pending.get("error"),
            "rolled_back": pending.get("taken_back", {}),
        },
    }


def _guard(raw: Raw) -> Raw:
    held = raw.get("held")
    approved = raw.get("passed")
    return {
        **({"held": _renamed(held, {"do": "remedy"})} if held else {}),
        **({"approved_loss": _renamed(approved, {"pairs": "direct_links"})} if approved else {}),
    }


def _pin(raw: Raw) -> Raw:
    return {
        "replaces": raw["instead_of"],
        "generation": raw.get("generation", 0),
        "policy": raw.get("policy"),
        "why": raw.get("why", ""),
    }


def _runs(_: Raw) -> Raw:
    return {"idle_fingerprint": ""}


def _renamed(raw: Mapping[str, Any], new_keys: Mapping[str, str]) -> Raw:
    return {new_keys.get(key, key): value for key, value in raw.items()}


_STEPS: Mapping[str, Callable[[Raw], Raw]] = {
    banks.CURRENT: _unchanged,
    banks.HEADS: _head,
    banks.HEAD_COPIES: _head,
    banks.GENERATIONS: _generation,
    banks.NODES: _node,
    banks.ACKS: _ack,
    banks.HEALTH: _health,
    banks.GUARD: _guard,
    banks.PINS: _pin,
    banks.RUNS: _runs,
}
