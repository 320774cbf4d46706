"""The programs of ``healing`` on the master's machine: ``bus.py listen|ping|storm <configuration folder> …``."""

from __future__ import annotations

import json
import sys
import time

import salt.client
import salt.config
import salt.utils.event

KEPT = ("id", "fun", "return", "down", "changed", "applied", "published", "act")


def listen(opts: dict) -> None:
    """Print each event of the bus, with the time of its arrival, as a line of JSON."""
    with salt.utils.event.get_event("master", sock_dir=opts["sock_dir"], opts=opts, listen=True) as bus:
        print(json.dumps({"tag": "listening", "at": time.time()}), flush=True)
        while True:
            event = bus.get_event(wait=5, full=True, auto_reconnect=True)
            if event:
                kept = {key: value for key, value in event["data"].items() if key in KEPT}
                if kept.get("fun") != "wgmesh.apply":
                    kept.pop("return", None)
                print(json.dumps({**kept, "tag": event["tag"], "at": time.time()}), flush=True)


def ping(opts: dict, nodes: str, rounds: str) -> None:
    """Print the seconds of each of some rounds of ``test.ping`` to the nodes."""
    taken = []
    with salt.client.LocalClient(mopts=opts) as client:
        for _ in range(int(rounds)):
            start = time.perf_counter()
            answers = client.cmd(nodes.split(","), "test.ping", tgt_type="list", timeout=10)
            taken.append(time.perf_counter() - start)
            assert set(answers) == set(nodes.split(",")), answers
    print(json.dumps(taken[1:]))


def storm(opts: dict, number: str, seconds: str) -> None:
    """Fire events at a steady rate over some seconds, of facts and of links in turn, each for another node."""
    with salt.utils.event.get_event("master", sock_dir=opts["sock_dir"], opts=opts, listen=False) as bus:
        start = time.monotonic()
        for i in range(int(number)):
            node = f"unknown{i}"
            tag = f"salt/beacon/{node}/wgmesh/link-down" if i % 2 else f"wgmesh/{node}/facts"
            bus.fire_event({"id": node, "mesh": "wg0", "neighbours": ["relay-fra1"], "down": ["relay-fra1"]}, tag)
            time.sleep(max(0.0, start + (i + 1) * float(seconds) / int(number) - time.monotonic()))


if __name__ == "__main__":
    {"listen": listen, "ping": ping, "storm": storm}[sys.argv[1]](
        salt.config.master_config(f"{sys.argv[2]}/master"), *sys.argv[3:]
    )
