"""A fleet on which saltext-wgmesh was never installed, and on which pip finds its wheel without a network.

Each machine sees this run's Python environment through an overlay of its own, from which the package is
uninstalled. The wheel is in a folder that is the only index of pip there.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...fleet import BIN, Fleet
from ...machine import REPOSITORY, Machine

PACKAGE = "saltext-wgmesh"
ENVIRONMENT = Path(sys.prefix)
SHIMS = "/run/shims"
"""Folder on the master's machine with stand-ins for programs that only Salt's onedir packages have."""

# $1: the environment, $2: folder of the wheel, $3: package.
UNINSTALLED = """
set -e
own=/run/.private/environment
mkdir -p "$own/upper" "$own/work"
mount -t overlay -o "lowerdir=$1,upperdir=$own/upper,workdir=$own/work" overlay "$1"
printf '[global]\\nno-index = true\\nfind-links = %s\\n' "$2" > "$1/pip.conf"
"$1/bin/python" -m pip uninstall -q -y "$3"
"""
# $1: the environment, $2: the lab's folder for Salt's configuration, $3: folder of the shims.
MASTER = """
set -e
mount -t tmpfs -o mode=755 tmpfs /srv
mkdir -p /srv/salt /srv/pillar /etc/salt "$2/master.d" "$3"
mount --bind "$2" /etc/salt
printf '#!/bin/sh\\nexec "%s/bin/python" -m pip "$@"\\n' "$1" > "$3/salt-pip"
chmod 755 "$3/salt-pip"
"""


def wheel(folder: Path, source: Path = REPOSITORY) -> Path:
    """Build the sdist of *source* and the wheel from it into *folder*, and return the path of the wheel."""
    words = [sys.executable, "-m", "build", "--outdir", str(folder), str(source)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def prepare(salt: Fleet, folder: Path) -> None:
    """Remove the package from all machines. The master's Salt is configured in /etc/salt and serves from /srv."""
    environment = str(ENVIRONMENT)
    machines = [salt.master, *(salt.underlay[name] for name in salt.minions)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda m: m.run("sh", "-c", UNINSTALLED, "sh", environment, str(folder), PACKAGE), machines))
    salt.master.run("sh", "-c", MASTER, "sh", environment, str(salt.master.folder / "salt"), SHIMS)


def bash(machine: Machine, line: str, timeout: float = 150) -> str:
    """Run the line in bash as a user would, and return its output. CommandFailed for another status than 0."""
    path = f"{SHIMS}:{BIN}:/usr/sbin:/usr/bin:/sbin:/bin"
    return machine.run("env", f"PATH={path}", "bash", "-euo", "pipefail", "-c", line, timeout=timeout)
