"""The operating system as this package uses it: commands without a shell, /proc/sys, and the paths of our files."""

from __future__ import annotations

import contextlib
import os
import re
import select
import selectors
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from subprocess import PIPE

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.errors import HostError

COMMAND_TIMEOUT = 60
"""Seconds for one command; only a DNS lookup inside ``wg set`` takes longer than a few milliseconds."""
MAX_OUTPUT = 16 * 2**20
"""Bytes that a command may print, about 150,000 routes: the rest of the node needs its memory too."""
READ_SIZE = 65536
"""Bytes that are read of a command at once."""
DNS_RETRIES = "2"
"""How often ``wg`` tries to resolve a name, with growing pauses between (default 15, which is a minute)."""

Line = tuple[str, ...]
"""The words of one line of ``ip -batch``."""


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
    command_timeout: float = COMMAND_TIMEOUT
    """Seconds for one command."""
    max_output: int = MAX_OUTPUT
    """Bytes that one command may print, and as many of its errors."""

    def run(self, *argv: str, text: str = "") -> str:
        """Run *argv* with *text* as its standard input, and return its standard output.

        No caller passes a secret in *argv* or *text*: ``wg`` gets the paths of key files. Bytes of the output that are
        no text are replaced: they are in a name that some program gave its device. A command that prints more than
        ``max_output`` bytes is ended.
        HostError, of whatever kind the failure is, holds the command and its standard error.
        """
        command = shlex.join(argv)
        try:
            status, output, errors = _run(argv, text, self.command_timeout, self.max_output)
        except FileNotFoundError:
            raise HostError(f"'{argv[0]}' is not installed on this node: apply the state wgmesh.tools") from None
        except subprocess.TimeoutExpired:
            raise HostError(f"'{command}' did not end within {self.command_timeout:g} s") from None
        except (OSError, ValueError) as error:
            raise HostError(f"'{command}' cannot be run: {error}") from error
        except _TooLongError:
            raise HostError(
                f"'{command}' printed more than {self.max_output} bytes: too many routes, rules or devices of other "
                "programs are on this node, or the program was replaced"
            ) from None
        if status:
            raise HostError(f"'{command}' failed ({status}): {_without_keys(errors.strip())}")
        return output

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
        except OSError as error:
            raise HostError(f"'{shlex.join(argv)}' cannot be run: {error}") from error
        if done.returncode:
            raise HostError(f"'{shlex.join(argv)}' failed ({done.returncode})")

    def has(self, program: str) -> bool:
        """Return whether *program* is in the path."""
        return shutil.which(program) is not None

    def sysctl(self, key: str) -> str | None:
        """Return the value of the kernel setting *key*, a path below /proc/sys; None if it can't be read, such as if
        this kernel lacks it."""
        try:
            return (self.sysctl_dir / key).read_text(errors="replace").strip()
        except OSError:
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

    def ip_batch(self, family: int, lines: Iterable[Line]) -> None:
        """Run each line by ``ip``, in order. HostError names the line that failed, and ends the lines after it.

        Routes that follow each other are set or deleted whichever of them fail. Deleting a route that does not exist is
        no failure: the watcher may have deleted it first.
        """
        for verb, group in groupby(lines, key=lambda line: line[1] if line[0] == "route" else None):
            listed = list(group)
            if verb:
                failures = self.ip_batch_each(family, listed)
                if failures:
                    raise HostError(first_failure(failures))
                continue
            try:
                self.run("ip", f"-{family}", "-batch", "-", text=_batch(listed))
            except HostError as error:
                named, _ = _failures(error, family, listed)
                raise HostError(first_failure(named)) if named else error from None

    def ip_batch_each(self, family: int, lines: Sequence[Line]) -> dict[Line, str]:
        """Run each line by ``ip``, in order, whichever fail; return those that failed, each with the reason.

        They are as of ``ip_batch``.
        """
        try:
            # ``-force``: the lines after one that failed are run too.
            self.run("ip", f"-{family}", "-force", "-batch", "-", text=_batch(lines))
        except HostError as error:
            named, is_complete = _failures(error, family, lines)
            # If ``ip`` ended early, none of the others is known to have succeeded.
            failures = named if is_complete else {**dict.fromkeys(lines, str(error)), **named}
            return {line: why for line, why in failures.items() if not _is_gone_already(line, why)}
        return {}


class _TooLongError(Exception):
    """A command printed more than it may."""


def _run(argv: Sequence[str], text: str, timeout: float, max_output: int) -> tuple[int, str, str]:
    """Run *argv* with *text* as its input; return the exit status, the output and the errors.

    subprocess.TimeoutExpired after *timeout* seconds, _TooLongError after *max_output* bytes of either; the command is
    ended then.
    """
    end, given = time.monotonic() + timeout, text.encode()
    process = subprocess.Popen(argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment())
    try:
        output, errors = _talk(process, given, end, max_output)
        status = process.wait(max(0.0, end - time.monotonic()))
    finally:
        for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
            with contextlib.suppress(OSError):
                pipe.close()
        if process.returncode is None:
            process.kill()
            process.wait()
    return status, output.decode(errors="replace"), errors.decode(errors="replace")


def _talk(process: subprocess.Popen[bytes], given: bytes, end: float, max_output: int) -> tuple[bytearray, bytearray]:
    """Give *process* its input, and return all that it prints until *end* of the monotonic clock."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    output, errors, left = bytearray(), bytearray(), memoryview(given)
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdin, selectors.EVENT_WRITE)
        selector.register(process.stdout, selectors.EVENT_READ, output)
        selector.register(process.stderr, selectors.EVENT_READ, errors)
        while selector.get_map():
            ready = selector.select(max(0.0, end - time.monotonic()))
            if not ready or time.monotonic() > end:
                raise subprocess.TimeoutExpired(process.args, 0.0)
            for key, _ in ready:
                if key.data is None:
                    left = left[_write(key.fd, left) :]
                    is_done = not left
                else:
                    is_done = not _read(key.fd, key.data, max_output)
                if is_done:
                    selector.unregister(key.fileobj)
                    if key.data is None:
                        # The program sees the end of its input.
                        process.stdin.close()
    return output, errors


def _write(pipe: int, left: memoryview) -> int:
    """Write a part of *left*, and return its length; the whole length if the program has stopped reading."""
    try:
        # As much as the kernel takes at once where it says that a pipe can be written to (pipe(7)).
        return os.write(pipe, left[: select.PIPE_BUF])
    except BrokenPipeError:
        return len(left)


def _read(pipe: int, into: bytearray, max_output: int) -> bool:
    """Add to *into* what can be read; return whether there may be more."""
    data = os.read(pipe, READ_SIZE)
    into += data
    if len(into) > max_output:
        raise _TooLongError
    return bool(data)


def first_failure(failures: Mapping[Line, str]) -> str:
    """Return the first of the reasons in *failures*, and how many others there are."""
    more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
    return f"{next(iter(failures.values()))}{more}"


def _batch(lines: Iterable[Line]) -> str:
    return "".join(f"{' '.join(line)}\n" for line in lines)


def _is_gone_already(line: Line, why: str) -> bool:
    return line[:2] == ("route", "del") and "No such process" in why


def _failures(error: HostError, family: int, lines: Sequence[Line]) -> tuple[dict[Line, str], bool]:
    """Return which of *lines* ``ip -batch`` named in *error*, each with the reason, and whether it ran all lines."""
    _, _, told = str(error).partition("): ")
    found = re.findall(r"(.*?)\s*Command failed -:(\d{1,9})", told, re.DOTALL)
    named: dict[Line, str] = {}
    for message, number in found:
        if 0 < int(number) <= len(lines):
            line = lines[int(number) - 1]
            named[line] = f"'{shlex.join(('ip', f'-{family}', *line))}' failed: {message.strip()}"
    # An error of the words themselves ends ``ip`` at once, without the number of the line.
    return named, bool(named) and re.search(r"Command failed -:\d+\s*$", told) is not None


def environment() -> dict[str, str]:
    """Return the environment of the programs that we start."""
    # The libraries of Salt's package are not for the system's programs, and wireguard-go must put itself into the
    # background.
    kept = {k: v for k, v in os.environ.items() if k not in ("WG_PROCESS_FOREGROUND", "LD_LIBRARY_PATH")}
    return {**kept, "LC_ALL": "C", "WG_ENDPOINT_RESOLUTION_RETRIES": DNS_RETRIES}


def _without_keys(message: str) -> str:
    """Cut out what ``wg`` quotes of a key that it can't read: a damaged private key is still a secret."""
    return re.sub(r"(Key is not the correct length or format)[^\n]*", r"\1", message)
