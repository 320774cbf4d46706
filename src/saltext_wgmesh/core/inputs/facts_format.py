"""The form of facts in the mine and in the ledger: plain values.

A node writes this form, and ``inputs.facts`` on the master reads it. The node imports only this module, so it loads
neither the reader nor netaddr.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.model.facts import Facts

MAX_ADDRESSES = 1024
"""The most underlay addresses that one node may publish."""
MAX_NETWORKS = 4096
"""The most prefixes that one node may publish; a proxy of Kubernetes gives a node an address for each service."""


def facts_as_dict(facts: Facts) -> dict[str, Any]:
    """Return *facts* as plain values for the mine and the ledger, without the node's name.

    ``facts.facts_from_dict`` is the inverse. A node adds ``observed_at``, which is only displayed: the master never
    relies on a node's clock.
    """
    return {
        "schema": constants.FACTS_SCHEMA,
        "public_key": facts.public_key,
        "salt_key": facts.salt_key,
        "underlay": list(facts.underlay),
        "networks": list(facts.networks),
        **({"lans": list(facts.lans)} if facts.lans is not None else {}),
        "ipv6": facts.ipv6,
        **({"next_key": facts.next_key} if facts.next_key else {}),
    }


def readers_of_facts(node: str) -> dict[str, str]:
    """Return the arguments of Salt's ``mine.send`` by which no minion but *node* reads what it publishes.

    A node that read of a new key at once could publish it too, before the master knows to which node it belongs.
    """
    return {"allow_tgt": node, "allow_tgt_type": "list"}


def facts_digest(raw: object) -> str:
    """Return the SHA-256, in hex, of facts in this form; ``observed_at`` does not count.

    *raw* may be any value of the mine: only the digests are compared. The digest is empty if this form has no such
    value, for instance a mapping whose keys are not all text. No node of this package publishes one.
    """
    hashed = {k: v for k, v in raw.items() if k != "observed_at"} if isinstance(raw, Mapping) else raw
    try:
        text = json.dumps(hashed, sort_keys=True, separators=(",", ":"), default=repr)
    except (TypeError, ValueError, RecursionError):
        return ""
    return hashlib.sha256(text.encode()).hexdigest()
