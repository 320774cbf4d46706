"""The one door to the operating system: commands without a shell, /proc/sys, and where our files lie."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from saltext_wgmesh.core import names
from saltext_wgmesh.core.errors import HostError

TIMEOUT = 60
"""Seconds for one command; only a DNS lookup inside ``wg set`` takes longer than a few milliseconds."""
LOOKUPS = "2"
"""How often ``wg`` tries to resolve a name, with growing pauses between (default 15, which is a minute)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """This node. A test gives other paths, or overrides the few methods."""

    key_file: Path = Path(names.KEY_FILE)
    conf_dir: Path = Path(names.CONF_DIR)
    state_dir: Path = Path(names.STATE_DIR)
    run_dir: Path = Path(names.RUN_DIR)
    sysctl_dir: Path = Path("/proc/sys")
    proc_net: Path = Path("/proc/net")
    proc_locks: Path = Path("/proc/locks")
    boot_id: Path = Path("/proc/sys/kernel/random/boot_id")
    systemd_dir: Path = Path("/run/systemd/system")
    """Exists where systemd is the init (sd_booted(3))."""
    units_dir: Path = Path("/etc/systemd/system/multi-user.target.wants")
    """Where systemd links the units that it starts at boot."""

    def run(self, *argv: str, text: str = "") -> str:
        """Standard output of *argv*, fed with *text*; HostError with the command and what it said.

        No caller has a secret in *argv* or *text*: private keys travel as the path of a file.
        """
        command = shlex.join(argv)
        try:
            done = subprocess.run(
                argv, input=text, capture_output=True, text=True, timeout=TIMEOUT, check=False, env=environment()
            )
        except FileNotFoundError:
            raise HostError(f"'{argv[0]}' is not installed on this node: apply the state wgmesh.tools") from None
        except subprocess.TimeoutExpired:
            raise HostError(f"'{command}' did not end within {TIMEOUT} s") from None
        if done.returncode:
            raise HostError(f"'{command}' failed ({done.returncode}): {_without_keys(done.stderr.strip())}")
        return done.stdout

    def start(self, *argv: str) -> None:
        """Run a program that goes into the background by itself. It gets none of our pipes or folders to hold."""
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=TIMEOUT,
                check=False,
                env=environment(),
                cwd="/",
                # Else it would share its turns with the jobs of the minion that starts it (sched(7), autogroup).
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise HostError(f"'{shlex.join(argv)}' did not go into the background within {TIMEOUT} s") from None
        if done.returncode:
            raise HostError(f"'{shlex.join(argv)}' failed ({done.returncode})")

    def has(self, program: str) -> bool:
        """Whether *program* is in the path."""
        return shutil.which(program) is not None

    def sysctl(self, key: str) -> str | None:
        """The value of the kernel setting at that path below /proc/sys; None if this kernel has none."""
        try:
            return (self.sysctl_dir / key).read_text().strip()
        except FileNotFoundError:
            return None

    def set_sysctl(self, key: str, value: str) -> None:
        """The kernel setting has *value*; HostError if it can't be set."""
        try:
            (self.sysctl_dir / key).write_text(value)
        except OSError as error:
            raise HostError(f"/proc/sys/{key} can't be set to {value}: {error.strerror}") from error

    @property
    def has_ipv6(self) -> bool:
        """Whether IPv6 is there and enabled, for new devices too."""
        return all(self.sysctl(f"net/ipv6/conf/{which}/disable_ipv6") == "0" for which in ("all", "default"))

    @property
    def has_systemd(self) -> bool:
        """Whether systemd runs this node."""
        return self.systemd_dir.is_dir()

    def ip_batch(self, family: int, lines: Iterable[tuple[str, ...]]) -> None:
        """Each line was run by ``ip``, in order; HostError names the line that failed.

        A route that is to be deleted and is not there is no failure: where a watcher runs, it may have been quicker.
        """
        left = list(lines)
        while left:
            try:
                self.run("ip", f"-{family}", "-batch", "-", text="".join(f"{' '.join(line)}\n" for line in left))
                return
            except HostError as error:
                failed = re.search(r"failed \(\d+\): (.*?)\s*Command failed -:(\d+)", str(error), re.DOTALL)
                if not failed:
                    raise
                line, *left = left[int(failed[2]) - 1 :]
                if line[:2] != ("route", "del") or "No such process" not in failed[1]:
                    raise HostError(f"'{shlex.join(('ip', f'-{family}', *line))}' failed: {failed[1]}") from None


def environment() -> dict[str, str]:
    """What programs that we start get."""
    kept = {k: v for k, v in os.environ.items() if k not in ("WG_PROCESS_FOREGROUND", "LD_LIBRARY_PATH")}
    return {**kept, "LC_ALL": "C", "WG_ENDPOINT_RESOLUTION_RETRIES": LOOKUPS}


def _without_keys(message: str) -> str:
    """``wg`` quotes a key that it can't read, and a damaged private key is still a secret."""
    return re.sub(r"(Key is not the correct length or format)[^\n]*", r"\1", message)
