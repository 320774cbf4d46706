"""The same full mesh of public nodes, written by wg-meshconf and by wgmesh."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import fleet
from bench.rows import Measure
from saltext_wgmesh.core.model.plan import Allocations, Plan
from saltext_wgmesh.core.planning import planner

SIZES = (100, 1_000)
RUNS = 5
COLUMNS = (
    "Name", "Address", "Endpoint", "AllowedIPs", "ListenPort", "PersistentKeepalive", "FwMark", "PrivateKey",
    "DNS", "MTU", "Table", "PreUp", "PostUp", "PreDown", "PostDown", "SaveConfig",
)  # fmt: skip


def run() -> list[Measure]:
    """Return seconds and bytes of both, at each size."""
    rows = []
    for size in SIZES:
        theirs, their_bytes = meshconf(size)
        ours, our_bytes = wgmesh(size)
        rows += [
            Measure(metric=f"wg-meshconf genconfig, {size} nodes", value=theirs, unit="s", runs=RUNS),
            Measure(metric=f"wgmesh plan and JSON views, {size} nodes", value=ours, unit="s", runs=RUNS),
            Measure(metric=f"wg-meshconf, {size} nodes", value=their_bytes, unit="bytes"),
            Measure(metric=f"wgmesh views, {size} nodes", value=our_bytes, unit="bytes"),
            Measure(metric=f"time, wgmesh / wg-meshconf, {size} nodes", value=ours / theirs, unit="x"),
            Measure(metric=f"bytes, wgmesh / wg-meshconf, {size} nodes", value=our_bytes / their_bytes, unit="x"),
        ]
    return rows


def wgmesh(size: int) -> tuple[float, int]:
    """Plan the mesh and write each view to a file. The start of Python counts, as it does for wg-meshconf."""
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(RUNS):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", "bench.meshconf", str(size), folder], check=True)
            taken.append(time.perf_counter() - start)
        return statistics.median(taken), sum(f.stat().st_size for f in Path(folder).glob("*.json"))


def write_views(size: int, folder: Path) -> None:
    """Write one JSON file per node."""
    plan: Plan = planner.plan_mesh(*fleet.full(size), Allocations())
    for node, view in plan.views.items():
        (folder / f"{node}.json").write_text(json.dumps(view.as_dict()), encoding="utf-8")


def meshconf(size: int) -> tuple[float, int]:
    """Have wg-meshconf write every node's file from a database that holds the same nodes."""
    plan = planner.plan_mesh(*fleet.full(size), Allocations())
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        database, output = Path(folder) / "database.csv", Path(folder) / "out"
        with database.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, COLUMNS, quoting=csv.QUOTE_ALL)
            writer.writeheader()
            for member in plan.members.values():
                assert member.endpoint is not None
                writer.writerow(
                    {
                        "Name": member.node,
                        "Address": f"{member.addresses[0]}/32",
                        "Endpoint": member.endpoint.host,
                        "ListenPort": str(member.endpoint.port),
                        "PrivateKey": base64.b64encode(hashlib.sha256(member.node.encode()).digest()).decode(),
                    }
                )
        for _ in range(RUNS):
            start = time.perf_counter()
            command = [sys.executable, "-m", "wg_meshconf", "-d", str(database), "genconfig", "-o", str(output)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            taken.append(time.perf_counter() - start)
        return statistics.median(taken), sum(f.stat().st_size for f in output.glob("*.conf"))


if __name__ == "__main__":
    write_views(int(sys.argv[1]), Path(sys.argv[2]))
