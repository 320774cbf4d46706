"""The execution module ``wgmesh`` of a compromised minion: each function returns a lie, another one at each call."""

import random
import time
from pathlib import Path

from saltext_wgmesh.core.inputs import salt_key
from saltext_wgmesh.minion.reporting import facts as facts_
from saltext_wgmesh.minion.state.store import Store
from saltext_wgmesh.minion.system.host import Host

MESH = "wg0"
VICTIM = "web1"
ESCAPES = "\x1b[2J\x1b]0;owned\x07\n\r"
NEVER = 90
"""Seconds for which a job goes on and on: longer than the master waits, and the minion says that it still runs."""


def __virtual__():
    return "wgmesh"


def _nested(levels=960):
    value = []
    for _ in range(levels):
        value = [value]
    return value


def _view():
    return Store(host=Host(), mesh=MESH).view()


def apply(*_args, **_kwargs):
    """One of the answers to a push."""
    digest = _view().digest()
    lies = (
        {MESH: {"digest": digest, "rolled_back": True, "error": "no link came up"}},
        {MESH: {"digest": ESCAPES * 10_000, "error": ESCAPES * 10_000}},
        {MESH: {"digest": _nested()}},
        {MESH: {"digest": digest, "test": True}, ESCAPES: 1, 7: None},
        "A" * 500_000,
        None,
    )
    if random.random() < 0.2:
        time.sleep(NEVER)
    return random.choice(lies)


def links():
    """All of its links are down, and so are thousands that it does not have."""
    view = _view()
    down = {"state": "down", "since": time.time(), "hold": 1e308, "interface": ESCAPES, "interval": -1}
    neighbours = {peer.node: down for interface in view.interfaces for peer in interface.peers}
    lies = (
        {MESH: {"schema": 2, "mesh": MESH, "from_watcher": True, "links": neighbours}},
        {
            MESH: {
                "schema": 2,
                "mesh": MESH,
                "from_watcher": True,
                "links": {f"{ESCAPES}{i}": down for i in range(5000)},
            }
        },
        {MESH: {"schema": 2, "mesh": MESH, "from_watcher": True, "links": _nested()}},
        {f"{ESCAPES}{i}": neighbours for i in range(5000)},
    )
    return random.choice(lies)


def forwarded():
    """A counter of packets that no kernel has."""
    return 10**400


def facts():
    """Facts that change at each call: its own with another address, those of its victim, and no facts at all."""
    own = facts_.gather(
        Host(), __opts__["id"], salt_key.fingerprint(Path(__opts__["pki_dir"], "minion.pub").read_text())
    )
    theirs = next((p.public_key for i in _view().interfaces for p in i.peers), "")
    lies = (
        {**own, "underlay": [f"192.0.2.{random.randrange(1, 250)}"]},
        {**own, "public_key": theirs},
        {**own, "next_key": theirs, "next_public_key": theirs},
        {**own, "public_key": ESCAPES},
        {1: 2, "a": {None: _nested()}},
        _nested(),
    )
    return random.choice(lies)


def enrol():
    """Nothing is done."""


def renew_key():
    """Nothing is done."""
