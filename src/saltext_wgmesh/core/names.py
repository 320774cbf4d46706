"""Every string and number that crosses a boundary: between processes, between versions, to a user.

Nothing else in the package spells these out, so that a reader who wants to know what the mesh leaves on a
wire, in a file name or in a kernel table finds it here.
"""

from __future__ import annotations

import re
import zlib

# Pillar and mine -------------------------------------------------------------------------------------
POLICY_KEY = "wgmesh"
"""The pillar key of the policy, in the pillar compiled for the master's own id."""
VIEW_KEY = "wgmesh_view"
"""The pillar key under which the ext_pillar gives a node its views: ``{mesh: view}``."""
PRESHARED_KEY = "wgmesh_preshared"
"""The pillar key under which the ext_pillar gives a node the preshared keys of its views, sealed: ``{mesh: text}``."""
PUBLISHED_KEY = "wgmesh_published"
"""The pillar key under which the ext_pillar tells a node the digest of the facts that the mine holds of it."""
FACTS_FUNCTION = "wgmesh.facts"
"""The execution function that makes a node's facts, and the mine's key for them."""
VIEW_SCHEMA = 3
FACTS_SCHEMA = 1

# Policy ----------------------------------------------------------------------------------------------
DEFAULT_PRUNE_GUARD = 20
"""Percent."""

# Events ----------------------------------------------------------------------------------------------
FACTS_TAG = "wgmesh/{node}/facts"
"""Fired by a node after its mine holds new facts."""

CONVERGED_TAG = "wgmesh/{mesh}/converged"
"""Fired by the master after a converge that did something, with its report."""

# BFD (RFC 5880, 5881, 7880, 7881) --------------------------------------------------------------------------
BFD_PORT = 3784
"""UDP, single hop (RFC 5881 section 4)."""
SBFD_PORT = 7784
"""UDP, where a node reflects probes that went through a relay (RFC 7881 section 4)."""
BFD_TTL = 255
"""Of every single-hop packet, sent and accepted (RFC 5881 section 5)."""
DEFAULT_BFD_INTERVAL = 100
"""Milliseconds."""
DEFAULT_BFD_MULTIPLIER = 3

# Files on a node -------------------------------------------------------------------------------------
KEY_FILE = "/etc/wireguard/wgmesh.key"
CONF_DIR = "/etc/wireguard"
STATE_DIR = "/var/lib/wgmesh"
RUN_DIR = "/run/wgmesh"
"""Where the watcher says how the links are: ``<mesh>.json``, in the shape of ``core.linkstate``."""

# Kernel ----------------------------------------------------------------------------------------------
IFNAMSIZ = 15
"""The longest name of a network interface, in bytes (IFNAMSIZ - 1 of <linux/if.h>)."""
ROUTE_PROTOCOL = 87
"""``proto`` of every route that is ours (rt_protos below 128 with no name in iproute2's table)."""
RULE_PRIORITY = 8700
"""Priority of the ``ip rule iif <trunk>`` rules: after ``local`` (0), before ``main`` (32766)."""

# WireGuard (timers: whitepaper section 6.1, constants of the reference implementation) ------------------
KEY_BYTES = 32
REJECT_AFTER_TIME = 180
"""Seconds after which a session is dead."""
DEFAULT_LISTEN_PORT = 51820
DEFAULT_MTU = 1420
"""1500 less 80 bytes, WireGuard's overhead over IPv6."""
DEFAULT_KEEPALIVE = 25
"""Seconds; below the UDP timeout of the usual NAT boxes (RFC 4787 REQ-5 asks for two minutes, many do 30 s)."""


def uplink_name(access: str, relay_number: int) -> str:
    """The interface of a leaf towards the relay with that number, as in ``wg0-u2``, where *access* is ``wg0``."""
    return f"{access}-u{relay_number}"


def trunk_name(access: str, relay_number: int) -> str:
    """The interface of a relay towards the relay with that number, as in ``wg0-t3``."""
    return f"{access}-t{relay_number}"


def stem(interface: str) -> str:
    """The access interface beside which *interface* is, if it is an uplink or a trunk; else itself."""
    return re.sub(r"(.)-[ut][0-9]+$", r"\1", interface)


def may_be_trunk(interface: str) -> bool:
    """Whether *interface* is named like a trunk, of whatever mesh."""
    return re.fullmatch(r".+-t[0-9]+", interface) is not None


def trunk_port(listen_port: int, relay_number: int) -> int:
    """The UDP port on which a relay hears the relay with that number (numbers start at 1)."""
    return listen_port + relay_number


def trunk_table(mesh: str) -> int:
    """The routing table for packets that came in by a trunk of *mesh*: the same on every node and run."""
    return 870_000_000 + zlib.crc32(mesh.encode()) % 1_000_000
