"""A stand-in for a watcher or supervisor of an earlier version: it holds their lock under another command line.

Arguments: the folder of the locks, the version to report, and ``--supervise`` for the supervisor. The supervisor starts
this file repeatedly. Once the file is deleted the start fails, as after an upgrade.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    """Hold the lock until killed."""
    folder, version = Path(sys.argv[1]), sys.argv[2]
    is_supervisor = "--supervise" in sys.argv
    lock = open(folder / ("supervise.lock" if is_supervisor else "watch.lock"), "a+")  # noqa: SIM115
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if not is_supervisor:
        (folder / "watch.pid").write_text(json.dumps({"pid": os.getpid(), "version": version}))
    while True:
        if is_supervisor:
            subprocess.run((sys.executable, __file__, str(folder), version), check=False, stderr=subprocess.DEVNULL)
        time.sleep(1.0)


main()
