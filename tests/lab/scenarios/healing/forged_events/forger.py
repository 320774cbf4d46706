"""Fire a hundred forged events a second at the master, as an accepted minion can. A program of the lab's machines.

    forger.py CONFIGURATION-FOLDER SECONDS

It prints ``firing`` after the first events, and ends by itself.
"""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path
from typing import Any

import salt.channel.client
import salt.config

RATE = 100
BATCH = 10
HOSTILE = "{{ 1/0 }}\n- runner.wgmesh.release: [{node: web1}]\n'\"&*!: [{%"


def forged(number: int) -> dict[str, Any]:
    """Return one forged event, of each kind in turn."""
    victim = ("web1", "relay-fra1", "relay-nyc1", f"ghost{number}", HOSTILE)[number % 5]
    about = {"id": victim, "mesh": "wg0", "neighbours": ["relay-fra1", HOSTILE], "down": ["relay-fra1", "relay-nyc1"]}
    kinds = (
        (f"salt/beacon/{victim}/wgmesh/stale", about),
        (f"salt/beacon/{victim}/wgmesh/link-down", about),
        (f"salt/beacon/{victim}/wgmesh/drift", {**about, "changes": [HOSTILE]}),
        ("salt/key", {"id": victim, "act": "delete", "result": True}),
        ("salt/key", {"id": victim, "act": HOSTILE, "result": HOSTILE}),
        (f"salt/minion/{victim}/start", {"id": victim, "cmd": "_minion_event", "data": HOSTILE}),
        (f"wgmesh/{victim}/facts", {"id": victim, "public_key": HOSTILE}),
    )
    tag, data = kinds[number % len(kinds)]
    return {"tag": tag, "data": data}


def main(folder: str, seconds: str) -> None:
    """Fire until the time is over."""
    opts = salt.config.minion_config(str(Path(folder) / "minion"))
    opts["master_uri"] = f"tcp://{opts['master']}:{opts['master_port']}"
    numbers = itertools.count()
    began = time.monotonic()
    with salt.channel.client.ReqChannel.factory(opts) as channel:
        for turn in range(int(float(seconds) * RATE / BATCH)):
            events = [forged(next(numbers)) for _ in range(BATCH)]
            channel.send({"id": opts["id"], "cmd": "_minion_event", "pretag": None, "events": events}, timeout=10)
            if turn == 0:
                print("firing", flush=True)
            time.sleep(max(0.0, began + (turn + 1) * BATCH / RATE - time.monotonic()))


if __name__ == "__main__":
    main(*sys.argv[1:])
