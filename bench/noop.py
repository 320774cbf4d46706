"""Duration of ``state.apply wgmesh`` without changes, compared with ``file.managed`` without changes.

Both run alternately on one node of the demo's mesh. The time is from the master's publish to the minion's return."""

from __future__ import annotations

import json
import statistics
import sys

from bench.rows import Measure
from saltext_wgmesh.master.operator import install
from tests.lab.demo import run as demo
from tests.lab.demo.topology import DEMO
from tests.lab.lab import Lab
from tests.lab.narrator import Narrator

PAIRS = 30
MINION = "web1"
PROGRAM = """
import json, sys, time, salt.client
client = salt.client.LocalClient(sys.argv[1] + "/master")
minion, pairs, taken = sys.argv[2], int(sys.argv[3]), {"file": [], "wgmesh": []}
for turn in range(pairs + 1):
    for name in ("file", "wgmesh") if turn % 2 else ("wgmesh", "file"):
        start = time.perf_counter()
        states = client.cmd(minion, "state.apply", [name], timeout=60)[minion]
        spent = time.perf_counter() - start
        changed = [s["changes"] for s in states.values() if s["changes"]]
        assert turn == 0 or not changed, changed
        assert all(s["result"] for s in states.values()), states
        if turn:
            taken[name].append(spent)
print(json.dumps(taken))
"""
FILE_STATE = """
/etc/wgmesh-bench:
  file.managed:
    - source: salt://file/content
"""


def run() -> list[Measure]:
    """Return the medians of both, and the median of the ratios of the pairs."""
    with Lab(DEMO) as lab:
        narrator = Narrator(demo.STEPS)
        demo.build(lab, narrator)
        folder = lab.salt.master.folder / "salt"
        states = folder / "states" / "file"
        states.mkdir(parents=True)
        (states / "init.sls").write_text(FILE_STATE, encoding="utf-8")
        (states / "content").write_text("the same as ever\n", encoding="utf-8")
        roots = {"file_roots": {"base": [str(folder / "states"), str(install.data_folder() / "states")]}}
        (folder / "master.d").mkdir(exist_ok=True)
        # Its name sorts after wgmesh.conf: the list of a later file replaces that of an earlier one.
        (folder / "master.d" / "zz-bench.conf").write_text(json.dumps(roots), encoding="utf-8")
        demo.start_salt(lab, narrator)
        demo.apply(lab, narrator)
        taken = json.loads(lab.salt.master.run(sys.executable, "-c", PROGRAM, str(folder), MINION, str(PAIRS)))
    ratios = [ours / theirs for ours, theirs in zip(taken["wgmesh"], taken["file"], strict=True)]
    return [
        Measure(metric="file.managed, nothing to do", value=statistics.median(taken["file"]), unit="s", runs=PAIRS),
        Measure(
            metric="state.apply wgmesh, nothing to do", value=statistics.median(taken["wgmesh"]), unit="s", runs=PAIRS
        ),
        Measure(metric="wgmesh / file.managed", value=statistics.median(ratios), unit="x", goal="<= 1.3", runs=PAIRS),
    ]
