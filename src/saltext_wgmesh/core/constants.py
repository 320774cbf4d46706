"""All strings and numbers that cross a boundary: between processes, between versions, or to a user.

No other module spells them out. So this file lists all that the mesh leaves on a wire, in a file name or in a kernel
table.
"""

from __future__ import annotations

import re
import zlib

# Pillar and mine -------------------------------------------------------------------------------------
PILLAR_POLICY = "wgmesh"
"""The pillar key of the policy, in the pillar compiled for the master's own id."""
PILLAR_VIEWS = "wgmesh_view"
"""The pillar key under which the ext_pillar gives a node its views: ``{mesh: view}``."""
PILLAR_PSKS = "wgmesh_preshared"
"""The pillar key under which the ext_pillar gives a node the sealed preshared keys of its views: ``{mesh: text}``."""
PILLAR_FACTS_DIGEST = "wgmesh_published"
"""The pillar key under which the ext_pillar gives a node the digest of its facts in the mine."""
PILLAR_ERROR = "wgmesh_error"
"""The pillar key under which the ext_pillar says which records of the master it could not read, as one text."""
PILLAR_FAILED_RUN = "wgmesh_failed_run"
"""The pillar key of a node without a view, while runs fail: ``{reason: text, run: number of the failed run}``."""
FACTS_FUNCTION = "wgmesh.facts"
"""The execution function that returns a node's facts, and their key in the mine."""
VIEW_SCHEMA = 4
FACTS_SCHEMA = 1

LEDGER_KEY = "ledger"
"""The key of an assignment in the pillar with the name of the ledger that it is from."""
TEST_KEY = "test"
"""The key in ``wgmesh.apply``'s return by which a node says that it changed nothing, since its minion only tests."""

# Policy ----------------------------------------------------------------------------------------------
DEFAULT_PRUNE_GUARD = 20
"""Percent."""

# Events ----------------------------------------------------------------------------------------------
FACTS_TAG = "wgmesh/{node}/facts"
"""A node sends this event after it has published new facts in the mine."""

CONVERGED_TAG = "wgmesh/{mesh}/converged"
"""The master sends this event, with the report, after a converge that made changes."""

# BFD (RFC 5880, 5881, 7880, 7881) --------------------------------------------------------------------------
BFD_PORT = 3784
"""UDP, single hop (RFC 5881 section 4)."""
BFD_ECHO_PORT = 3785
"""UDP; packets of a node to itself through a relay (RFC 5881 section 4)."""
SBFD_PORT = 7784
"""UDP; a node reflects probes on this port that went through a relay (RFC 7881 section 4)."""
BFD_TTL = 255
"""The TTL of every single-hop packet, sent and accepted (RFC 5881 section 5)."""
DEFAULT_BFD_INTERVAL = 100
"""Milliseconds."""
DEFAULT_BFD_MULTIPLIER = 3

# Files on a node -------------------------------------------------------------------------------------
KEY_FILE = "/etc/wireguard/wgmesh.key"
CONF_DIR = "/etc/wireguard"
STATE_DIR = "/var/lib/wgmesh"
RUN_DIR = "/run/wgmesh"
"""The watcher writes its link reports here: ``<mesh>.json``, in the form of ``core.liveness.link_report``."""
OUTCOMES_FILE = "outcomes.json"
UNDERLAY_FILE = "underlay.json"
LOST_KEY_FILE = "lost.key"
"""In STATE_DIR, beside the folders of the meshes, which have their names."""
LOCK_SUFFIX = ".lock"
"""The lock of a mesh is beside its folder, with this end of its name."""

# Kernel ----------------------------------------------------------------------------------------------
IFNAMSIZ = 15
"""The longest name of a network interface, in bytes (IFNAMSIZ - 1 of <linux/if.h>)."""
ROUTE_PROTOCOL = 87
"""``proto`` of every route of this package: below 128, and without a name in iproute2's table rt_protos."""
RULE_PRIORITY = 8700
"""Priority of the ``ip rule iif <trunk>`` rules: after ``local`` (0), before ``main`` (32766)."""

# WireGuard (timers: whitepaper section 6.1, constants of the reference implementation) ------------------
KEY_BYTES = 32
REJECT_AFTER_TIME = 180
"""Seconds after which a WireGuard session ends."""
DEFAULT_LISTEN_PORT = 51820
DEFAULT_MTU = 1420
"""Bytes: 1500 less 80, the overhead of WireGuard over IPv6."""
DEFAULT_KEEPALIVE = 25
"""Seconds; below the UDP timeout of common NAT boxes (RFC 4787 REQ-5 requires two minutes, many have 30 s)."""


def uplink_name(access: str, relay_number: int) -> str:
    """Return the name of a leaf's interface to the relay *relay_number*: ``wg0-u2`` if *access* is ``wg0``."""
    return f"{access}-u{relay_number}"


def trunk_name(access: str, relay_number: int) -> str:
    """Return the name of a relay's interface to the relay *relay_number*: ``wg0-t3`` if *access* is ``wg0``."""
    return f"{access}-t{relay_number}"


def stem(interface: str) -> str:
    """Return the access interface that *interface*, an uplink or a trunk, is named after; any other name unchanged."""
    return re.sub(r"(.)-[ut][0-9]+$", r"\1", interface)


def may_be_trunk(interface: str) -> bool:
    """Return whether *interface* has the name of a trunk of any mesh."""
    return re.fullmatch(r".+-t[0-9]+", interface) is not None


def trunk_port(listen_port: int, relay_number: int) -> int:
    """Return the UDP port of a relay's trunk to the relay *relay_number* (numbers start at 1)."""
    return listen_port + relay_number


def trunk_table(mesh: str) -> int:
    """Return the routing table for packets that arrive on a trunk of *mesh*, the same on every node and run."""
    return 870_000_000 + zlib.crc32(mesh.encode(errors="replace")) % 1_000_000


def is_node_file(name: str) -> bool:
    """Return whether STATE_DIR has, or may have, a file *name*, so that no mesh can have this name."""
    return name in (OUTCOMES_FILE, UNDERLAY_FILE, LOST_KEY_FILE) or name.endswith(LOCK_SUFFIX)


def nft_table(mesh: str) -> str:
    """Return the name of the nftables table (family inet) of *mesh* on a relay.

    ``nft`` takes neither ``+`` nor ``=`` in a name. No mesh has the ``/`` that stands for them.
    """
    return f"wgmesh-{mesh.replace('+', '/p').replace('=', '/e')}"
