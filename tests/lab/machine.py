"""A machine of the lab: its own network, mounts, host name and process table, held by one sleeping process.

Its namespaces have no names, so that they end with their last process. /run is a tmpfs of its own. /etc and
the folders of /var that packages write to are overlays, so that changes on a machine are not visible outside.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

from . import processes
from .wait import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]

# $1: host name, $2: the repository (which stays writable at any path).
HOLDER = """
set -e
read -r pid rest < /proc/self/stat
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/tmp /run/.private/here
chmod 1777 /run/tmp /run/lock
mount --rbind "$2" /run/.private/here
for tree in /etc /var/lib /var/cache /var/log; do
    own=/run/.private$tree
    mkdir -p "$own/upper" "$own/work"
    chmod --reference=$tree "$own/upper"
    mount -t overlay -o lowerdir=$tree,upperdir=$own/upper,workdir=$own/work overlay $tree
done
mount --rbind /run/.private/here "$2"
mount -t proc proc /proc
mount -t sysfs sysfs /sys
hostname "$1"
rm -f /etc/resolv.conf /etc/hosts
: > /etc/resolv.conf
printf '127.0.0.1 localhost\\n127.0.1.1 %s\\n' "$1" > /etc/hosts
ip link set lo up
echo "$pid"
exec > /dev/null
# This is process 1 here: since it ignores CHLD, the kernel reaps what it adopts. (dash's trap can't do that.)
exec env --ignore-signal=CHLD sleep infinity
"""


class CommandFailed(AssertionError):
    """A command on a machine ended with an exit status other than 0."""


class Machine:
    """A handle on one machine. ``start`` and then ``await_start`` make the machine, which ends with its processes."""

    def __init__(self, name: str, tag: str, folder: Path) -> None:
        self.name = name
        self.tag = tag
        self.folder = folder
        self._starting: subprocess.Popen[str] | None = None
        self._pid = 0

    @property
    def _pid_file(self) -> Path:
        return self.folder / "pid"

    def start(self) -> None:
        """Start to make the machine's namespaces. ``await_start`` waits until they exist."""
        self.folder.mkdir(parents=True, exist_ok=True)
        unshare = ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"]
        self._starting = subprocess.Popen(
            [*unshare, "sh", "-c", HOLDER, "sh", self.name, str(REPOSITORY)],
            env=processes.environment(self.tag, self.name),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=(self.folder / "holder.log").open("w"),
            start_new_session=True,
            text=True,
        )

    def await_start(self) -> None:
        """Wait until the machine can run commands. CommandFailed with the reason if it could not be made."""
        assert self._starting is not None
        assert self._starting.stdout is not None
        line = self._starting.stdout.readline().strip()
        if not line:
            reason = (self.folder / "holder.log").read_text().strip()
            raise CommandFailed(f"{self.name}: could not make the namespaces: {reason}")
        self._pid = int(line)
        self._pid_file.write_text(line)

    @property
    def pid(self) -> int:
        """Return the pid of the holder, as seen outside. CommandFailed if the machine does not run."""
        if not self._pid and self._pid_file.exists():
            pid = int(self._pid_file.read_text())
            if any(p.pid == pid for p in processes.tagged(self.tag)):
                self._pid = pid
        if not self._pid:
            raise CommandFailed(f"{self.name} does not run in lab {self.tag}")
        return self._pid

    def enter(self, *args: str) -> list[str]:
        """Return the command line that runs *args* on the machine from outside."""
        return ["nsenter", "-t", str(self.pid), "-n", "-m", "-u", "-i", "-p", *args]

    def spawn(self, *args: str, log: str | IO[Any] | int = subprocess.PIPE) -> subprocess.Popen[str]:
        """Start *args* on the machine. *log* names the file in the machine's folder for its output."""
        output = (self.folder / log).open("a") if isinstance(log, str) else log
        process = subprocess.Popen(
            self.enter(*args),
            env=processes.environment(self.tag, self.name),
            cwd="/",
            stdin=subprocess.PIPE if log == subprocess.PIPE else subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE if log == subprocess.PIPE else subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
        if isinstance(log, str):
            output.close()  # type: ignore[union-attr]
        return process

    def run(self, *args: str, check: bool = True, timeout: float = 120, stdin: str = "") -> str:
        """Run *args* and return its standard output. With *check*, CommandFailed for a status other than 0."""
        output, failure = self.attempt(*args, timeout=timeout, stdin=stdin)
        if check and failure:
            raise failure
        return output

    def attempt(self, *args: str, timeout: float = 120, stdin: str = "") -> tuple[str, CommandFailed | None]:
        """Run *args* and return its standard output, and the error for a status other than 0.

        CommandFailed is raised if the command does not end within *timeout* seconds.
        """
        process = self.spawn(*args)
        try:
            out, err = process.communicate(stdin, timeout=timeout)
        except BaseException as error:
            signal_child(process, signal.SIGKILL)
            process.kill()
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise CommandFailed(f"{self.name}: {' '.join(args)}: no end within {timeout:g} s") from None
            raise
        if not process.returncode:
            return out, None
        output = f"{out.strip()}\n{err.strip()}".strip()[-2000:]
        return out, CommandFailed(f"{self.name}: {' '.join(args)}: status {process.returncode}: {output}")

    def json(self, *args: str) -> Any:
        """Return the output of the command, read as JSON."""
        return json.loads(self.run(*args) or "null")

    def sysctl(self, **values: int) -> None:
        """Set the given sysctls. A double underscore in a name stands for the dot."""
        self.run("sysctl", "-qw", *(f"{key.replace('__', '.')}={value}" for key, value in values.items()))

    def lose_power(self) -> None:
        """Kill every process on the machine, and remove WireGuard devices, unreachable routes and rules."""
        spared = processes.ancestors(self.pid)

        def none_left() -> bool:
            left = [p for p in processes.tagged(self.tag) if p.machine == self.name and p.pid not in spared]
            for process in left:
                processes.kill(process.pid, signal.SIGKILL)
            return not left

        wait_until(none_left, 10, f"the processes on {self.name} to die")
        # iproute2 of Debian 12 prints an empty object for each link of another type.
        for link in filter(None, self.json("ip", "-j", "link", "show", "type", "wireguard")):
            self.run("ip", "link", "del", link["ifname"])
        for family in ("-4", "-6"):
            self.run("ip", family, "rule", "flush")
            self.run("ip", family, "rule", "add", "priority", "32766", "lookup", "main")
            self.run("ip", family, "route", "flush", "table", "all", "type", "unreachable", check=False)
        self.run("rm", "-rf", "/run/wireguard")

    def addresses(self) -> dict[str, str]:
        """Return address → interface, without link-local addresses and the loopback interface."""
        return {
            a["local"]: link["ifname"]
            for link in self.json("ip", "-j", "address", "show")
            for a in link["addr_info"]
            if a["scope"] == "global"
        }

    def links(self) -> dict[str, int]:
        """Return interface → its ifindex. Another number means that the interface was recreated."""
        return {link["ifname"]: link["ifindex"] for link in self.json("ip", "-j", "link", "show")}


def signal_child(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send the signal to the program that ``nsenter`` runs. nsenter ends after it."""
    for pid in processes.children(process.pid):
        processes.kill(pid, number)


def shell(machine: Machine, command: tuple[str, ...] = ()) -> int:
    """Run a shell, or a command, on the machine with this terminal, and return its exit status."""
    env = {**processes.environment(machine.tag, machine.name), "PS1": f"{machine.name}# "}
    words = command or (("bash", "--norc", "-i") if sys.stdin.isatty() else ("bash", "--norc"))
    with contextlib.suppress(KeyboardInterrupt):
        return subprocess.run(machine.enter(*words), env=env, check=False, cwd=os.sep).returncode
    return 130
