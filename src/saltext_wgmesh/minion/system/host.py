"""The operating system as this package uses it: commands without a shell, /proc/sys, and the paths of our files."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.errors import HostError

COMMAND_TIMEOUT = 60
"""Seconds for one command; only a DNS lookup inside ``wg set`` takes longer than a few milliseconds."""
DNS_RETRIES = "2"
"""How often ``wg`` tries to resolve a name, with growing pauses between (default 15, which is a minute)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """This node. Tests pass other paths, or override the few methods."""

    key_file: Path = Path(constants.KEY_FILE)
    conf_dir: Path = Path(constants.CONF_DIR)
    state_dir: Path = Path(constants.STATE_DIR)
    run_dir: Path = Path(constants.RUN_DIR)
    sysctl_dir: Path = Path("/proc/sys")
    proc_net: Path = Path("/proc/net")
    proc: Path = Path("/proc")
    boot_id: Path = Path("/proc/sys/kernel/random/boot_id")
    systemd_dir: Path = Path("/run/systemd/system")
    """Exists where systemd is the init (sd_booted(3))."""
    units_dir: Path = Path("/etc/systemd/system/multi-user.target.wants")
    """Where systemd links the units that it starts at boot."""

    def run(self, *argv: str, text: str = "") -> str:
        """Run *argv* with *text* as its standard input, and return its standard output.

        No caller passes a secret in *argv* or *text*: ``wg`` gets the paths of key files.
        HostError holds the command and its standard error.
        """
        command = shlex.join(argv)
        try:
            done = subprocess.run(
                argv,
                input=text,
                capture_output=True,
                text=True,
                timeout=COMMAND_TIMEOUT,
                check=False,
                env=environment(),
            )
        except FileNotFoundError:
            raise HostError(f"'{argv[0]}' is not installed on this node: apply the state wgmesh.tools") from None
        except subprocess.TimeoutExpired:
            raise HostError(f"'{command}' did not end within {COMMAND_TIMEOUT} s") from None
        if done.returncode:
            raise HostError(f"'{command}' failed ({done.returncode}): {_without_keys(done.stderr.strip())}")
        return done.stdout

    def start(self, *argv: str) -> None:
        """Run a program that puts itself into the background. It inherits none of our pipes, nor our working folder."""
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=COMMAND_TIMEOUT,
                check=False,
                env=environment(),
                cwd="/",
                # In the session of the minion it would share CPU time with the minion's jobs (sched(7), autogroup).
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise HostError(f"'{shlex.join(argv)}' did not go into the background within {COMMAND_TIMEOUT} s") from None
        if done.returncode:
            raise HostError(f"'{shlex.join(argv)}' failed ({done.returncode})")

    def has(self, program: str) -> bool:
        """Return whether *program* is in the path."""
        return shutil.which(program) is not None

    def sysctl(self, key: str) -> str | None:
        """Return the value of the kernel setting *key*, a path below /proc/sys; None if this kernel lacks it."""
        try:
            return (self.sysctl_dir / key).read_text().strip()
        except FileNotFoundError:
            return None

    def set_sysctl(self, key: str, value: str) -> None:
        """Set the kernel setting *key* to *value*. HostError if the kernel refuses it."""
        try:
            (self.sysctl_dir / key).write_text(value)
        except OSError as error:
            raise HostError(f"/proc/sys/{key} can't be set to {value}: {error.strerror}") from error

    @property
    def has_ipv6(self) -> bool:
        """Whether this node has IPv6, and enables it on new devices too."""
        return all(self.sysctl(f"net/ipv6/conf/{which}/disable_ipv6") == "0" for which in ("all", "default"))

    @property
    def has_systemd(self) -> bool:
        """Whether systemd is the init of this node."""
        return self.systemd_dir.is_dir()

    def ip_batch(self, family: int, lines: Iterable[tuple[str, ...]]) -> None:
        """Run each line by ``ip``, in order. HostError names the line that failed.

        Deleting a route that does not exist is no failure: the watcher may have deleted it first.
        """
        for is_removal, group in groupby(lines, key=lambda line: line[:2] == ("route", "del")):
            listed = list(group)
            # ``-force``: one command for all removals, however many of the routes are gone.
            force = ("-force",) if is_removal else ()
            text = "".join(f"{' '.join(line)}\n" for line in listed)
            try:
                self.run("ip", f"-{family}", *force, "-batch", "-", text=text)
            except HostError as error:
                _raise_failed_line(error, family, listed)


def _raise_failed_line(error: HostError, family: int, lines: Sequence[tuple[str, ...]]) -> None:
    """Raise the HostError of the first of *lines* that failed, except for removals of routes that do not exist."""
    _, _, told = str(error).partition("): ")
    failures = re.findall(r"(.*?)\s*Command failed -:(\d+)", told, re.DOTALL)
    if not failures:
        raise error
    for message, number in failures:
        line = lines[int(number) - 1]
        if line[:2] != ("route", "del") or "No such process" not in message:
            words = shlex.join(("ip", f"-{family}", *line))
            raise HostError(f"'{words}' failed: {message.strip()}") from None


def environment() -> dict[str, str]:
    """Return the environment of the programs that we start."""
    # The libraries of Salt's package are not for the system's programs, and wireguard-go must put itself into the
    # background.
    kept = {k: v for k, v in os.environ.items() if k not in ("WG_PROCESS_FOREGROUND", "LD_LIBRARY_PATH")}
    return {**kept, "LC_ALL": "C", "WG_ENDPOINT_RESOLUTION_RETRIES": DNS_RETRIES}


def _without_keys(message: str) -> str:
    """Cut out what ``wg`` quotes of a key that it can't read: a damaged private key is still a secret."""
    return re.sub(r"(Key is not the correct length or format)[^\n]*", r"\1", message)
