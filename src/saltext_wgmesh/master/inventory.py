"""What the master knows of the fleet: the policy, the accepted keys, the mine. Reading only."""

from __future__ import annotations

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

from saltext_wgmesh.core import names, saltkey
from saltext_wgmesh.core.errors import PolicyError, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """One look at all three, before anything of it is believed."""

    policy: Any
    """The raw value of the pillar key ``wgmesh``; None where there is none."""
    accepted: Mapping[str, str]
    """Minion id → fingerprint of its accepted Salt key (``core.saltkey``)."""
    mine: Mapping[str, Any]
    """Minion id → its raw ``wgmesh.facts``; also of ids whose key is gone, if Salt still holds them."""


def read(opts: dict[str, Any]) -> Inventory:
    """The inventory as it stands now; PolicyError if the master's own pillar does not render."""
    accepted = accepted_keys(opts)
    cache = salt.cache.factory(opts)
    named = sorted({*accepted, *(cache.list("mine") or ())})
    mine = {node: facts for node in named if (facts := mine_entry(cache, node))}
    return Inventory(policy=raw_policy(opts), accepted=accepted, mine=mine)


def drop_mine(opts: dict[str, Any], node: str) -> None:
    """The mine holds no facts of a node whose key is gone: Salt 3008 keeps a deleted minion's mine."""
    cache = salt.cache.factory(opts)
    entries = _entries(cache.fetch("mine", node))
    if entries.pop(names.FACTS_FUNCTION, None) is not None:
        cache.store("mine", node, entries)


def raw_policy(opts: dict[str, Any]) -> Any:
    """The pillar key ``wgmesh``, compiled afresh for the master's own id.

    A pillar that fails to render is an error, not an empty policy.
    """
    pillar = salt.pillar.Pillar(opts, dict(opts.get("grains") or {}), opts["id"], "base").compile_pillar()
    errors = pillar.get("_errors")
    if errors:
        raise PolicyError(
            Problem(where=f"pillar of {opts['id']}", what=str(error), do="mend the pillar file") for error in errors
        )
    return pillar.get(names.POLICY_KEY)


def accepted_keys(opts: dict[str, Any]) -> dict[str, str]:
    """Accepted minion ids with the fingerprints of their keys, sorted."""
    keys = salt.key.get_key(opts).key_str("*").get("minions", {})
    return {node: saltkey.fingerprint(pem) for node, pem in sorted(keys.items())}


def is_accepted(opts: dict[str, Any], node: str) -> bool:
    """Whether *node*, which anybody may have made up, has an accepted key. One look at one key."""
    if not salt.utils.verify.valid_id(opts, node):
        return False
    try:
        # Salt 3008 keeps keys in a cache, those before it in files.
        if driver := opts.get("keys.cache_driver"):
            return (salt.cache.Cache(opts, driver=driver).fetch("keys", node) or {}).get("state") == "accepted"
        return Path(opts["pki_dir"], "minions", node).is_file()
    except (salt.exceptions.SaltCacheError, OSError, ValueError):
        return False


def mine_entry(cache: salt.cache.Cache, node: str) -> Any:
    """What the mine holds of one node's facts, unwrapped; None if nothing.

    One or two short reads, since the bank differs by version. (Salt's own reader costs far more: it makes
    a minion of the master's own first.)
    """
    for bank, key in (("mine", node), (f"minions/{node}", "mine")):
        entry = _entries(cache.fetch(bank, key)).get(names.FACTS_FUNCTION)
        # A minion writes what it likes: of an entry with rights and without data there is nothing.
        if isinstance(entry, dict) and salt.utils.mine.MINE_ITEM_ACL_ID in entry:
            entry = entry.get(salt.utils.mine.MINE_ITEM_ACL_DATA)
        if entry:
            return entry
    return None


def _entries(bank: Any) -> dict[str, Any]:
    return bank if isinstance(bank, dict) else {}
