"""Facts as values, and as nodes publish them in the mine."""

from __future__ import annotations

import base64
from typing import Any

import yaml

from saltext_wgmesh.core.inputs import policy
from saltext_wgmesh.core.model.facts import Facts
from saltext_wgmesh.core.model.policy import MeshPolicy

SALT_KEY = "5a" * 32
OTHER_SALT_KEY = "77" * 32


def key(number: int) -> str:
    """Return the public key with that number."""
    return base64.b64encode(number.to_bytes(32, "big")).decode()


def published(**changes: Any) -> dict[str, Any]:
    """Return facts in the form of the mine."""
    return {
        "schema": 1,
        "public_key": key(1),
        "salt_key": SALT_KEY,
        "underlay": ["203.0.113.7"],
        "networks": ["203.0.113.0/24"],
        "ipv6": True,
        "observed_at": "2026-01-02T03:04:05Z",
        **changes,
    }


def facts_with_key(node: str, number: int, **changes: Any) -> Facts:
    """Return the facts of *node* with the public key *number*."""
    return Facts(node=node, public_key=key(number), **{"salt_key": SALT_KEY, **changes})


def by_node(*facts: Facts) -> dict[str, Facts]:
    """Return node → facts."""
    return {own.node: own for own in facts}


def gateway_mesh(text: str = "") -> MeshPolicy:
    """Return a mesh of the relay r1, the gateway gw and all ids that begin with n; *text* is appended to its YAML."""
    source = """
    network: [10.100.0.0/16, fd00:64::/64]
    nodes:
      r1: {role: relay, endpoint: 203.0.113.10}
      gw: {routes: [192.168.7.0/24, 192.168.8.0/24]}
      'n*':
    """
    return policy.parse_policy({"wg0": yaml.safe_load(source + text)}).meshes["wg0"]
