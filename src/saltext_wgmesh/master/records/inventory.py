"""The inventory: the policy, the accepted keys and the mine, as the master has them."""

from __future__ import annotations

import calendar
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import salt.cache
import salt.exceptions
import salt.key
import salt.pillar
import salt.utils.mine
import salt.utils.verify

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.errors import PolicyError, Problem
from saltext_wgmesh.core.inputs import salt_key
from saltext_wgmesh.core.model import untrusted
from saltext_wgmesh.core.model.untrusted import Refused

_KEY_READS = 5
"""Attempts to read all keys at one moment."""
UNUSABLE_ENTRY = (
    salt.exceptions.SaltCacheError,
    salt.exceptions.SaltDeserializationError,
    OSError,
    LookupError,
    TypeError,
    ValueError,
    RecursionError,
)
"""Errors of Salt's cache where a file is damaged, or has values that Salt can't write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Policy, keys and mine as they were read together, before anything in them is trusted."""

    policy: Any
    """The raw value of the pillar key ``wgmesh``; None where there is none."""
    accepted: Mapping[str, str]
    """Minion id → fingerprint of its accepted Salt key (``core.inputs.salt_key``)."""
    mine: Mapping[str, Any]
    """Minion id → its raw ``wgmesh.facts``; also of ids whose key is gone, if Salt still holds them.

    An entry that is too large or too deep to be read is a ``Refused``, whichever way it came here.
    """

    def __post_init__(self) -> None:
        mine = {node: untrusted.bounded(facts, untrusted.MINE_BOUNDS) for node, facts in self.mine.items()}
        object.__setattr__(self, "mine", mine)


def read_inventory(opts: dict[str, Any]) -> Inventory:
    """The inventory as it stands now; PolicyError if the master's own pillar does not render."""
    accepted = accepted_keys(opts)
    cache = salt.cache.factory(opts)
    named = sorted({*accepted, *(cache.list("mine") or ())})
    mine = {node: facts for node in named if (facts := mine_entry(cache, node))}
    return Inventory(policy=raw_policy(opts), accepted=accepted, mine=mine)


def drop_mine(opts: dict[str, Any], node: str) -> None:
    """Delete the facts of *node* from the mine.

    Salt 3008 keeps the mine of a minion whose key was deleted.
    """
    cache = salt.cache.factory(opts)
    try:
        entries = _entries(cache.fetch("mine", node))
        if entries.pop(constants.FACTS_FUNCTION, None) is not None:
            cache.store("mine", node, entries)
    except UNUSABLE_ENTRY:
        # Salt reads other values than it writes. The key is gone, so the other functions' values are of no use either.
        cache.flush("mine", node)


def raw_policy(opts: dict[str, Any]) -> Any:
    """The pillar key ``wgmesh``, compiled now for the master's own id; None if there is none.

    A pillar that fails to render is a PolicyError, not an empty policy.
    """
    pillar = salt.pillar.Pillar(opts, dict(opts.get("grains") or {}), opts["id"], "base").compile_pillar()
    errors = pillar.get("_errors")
    if errors:
        raise PolicyError(
            Problem(path=f"pillar of {opts['id']}", message=str(error), remedy="correct the pillar file")
            for error in errors
        )
    return pillar.get(constants.PILLAR_POLICY)


def accepted_keys(opts: dict[str, Any]) -> dict[str, str]:
    """Accepted minion ids with the fingerprints of their keys, sorted."""
    for _ in range(_KEY_READS - 1):
        # Salt lists the keys and then reads each. It raises this error for one that is accepted or deleted in between.
        with contextlib.suppress(AttributeError):
            return _read_keys(opts)
    return _read_keys(opts)


def is_key_revoked(opts: dict[str, Any], accepted: Mapping[str, str]) -> bool:
    """Whether one of the keys that were *accepted* is so no longer, also if the minion has another one now.

    *accepted* is as of ``accepted_keys``.
    """
    return bool(accepted) and not accepted.items() <= accepted_keys(opts).items()


def _read_keys(opts: dict[str, Any]) -> dict[str, str]:
    keys = salt.key.get_key(opts).key_str("*").get("minions", {})
    return {node: salt_key.fingerprint(pem) for node, pem in sorted(keys.items())}


def is_accepted(opts: dict[str, Any], node: str) -> bool:
    """Whether *node* has an accepted key. *node* may be any text that an event carried.

    One key is read, since each event asks for a few.
    """
    if not salt.utils.verify.valid_id(opts, node):
        return False
    try:
        # Salt 3008 keeps keys in a cache, earlier versions keep them in files.
        if driver := opts.get("keys.cache_driver"):
            return (salt.cache.Cache(opts, driver=driver).fetch("keys", node) or {}).get("state") == "accepted"
        return Path(opts["pki_dir"], "minions", node).is_file()
    except (salt.exceptions.SaltCacheError, OSError, ValueError):
        return False


def mine_entry(cache: salt.cache.Cache, node: str) -> Any:
    """The facts of *node* in the mine, unwrapped; None if there are none; a ``Refused`` if they can't be read.

    This is one or two short reads, since the bank differs by Salt version. Salt's own reader starts a minion of the
    master's own first, which takes far longer.
    """
    for bank, key in (("mine", node), (f"minions/{node}", "mine")):
        try:
            stored = cache.fetch(bank, key)
        except UNUSABLE_ENTRY as error:
            return Refused(reason=f"can't be read ({type(error).__name__} in {bank} {key} of the master's cache)")
        entry = _entries(stored).get(constants.FACTS_FUNCTION)
        # A minion writes what it likes, so an entry with access rights may lack its data.
        if isinstance(entry, dict) and salt.utils.mine.MINE_ITEM_ACL_ID in entry:
            entry = entry.get(salt.utils.mine.MINE_ITEM_ACL_DATA)
        if entry:
            return untrusted.bounded(entry, untrusted.MINE_BOUNDS)
    return None


def observed_at(opts: dict[str, Any], node: str) -> float | None:
    """When *node* gathered its facts by its own clock, in seconds since the epoch; None if it does not say.

    For display alone: no node's clock is relied on.
    """
    entry = mine_entry(salt.cache.factory(opts), node)
    try:
        return float(calendar.timegm(time.strptime(entry["observed_at"], "%Y-%m-%dT%H:%M:%SZ")))
    except (TypeError, KeyError, ValueError):
        return None


def _entries(bank: Any) -> dict[str, Any]:
    return bank if isinstance(bank, dict) else {}
