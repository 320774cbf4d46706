"""A real salt-master and real salt-minions on the machines of an underlay."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import salt.config

from saltext_wgmesh.minion.watcher.instance import WATCHER_COMMAND

from . import saltconf
from .machine import CommandFailed, Machine, signal_child
from .processes import kill, tagged
from .underlay import Underlay
from .wait import wait_until

BIN = Path(sys.executable).parent
BROKEN_WORKER = "worker will be non-functional"
"""A log line of Salt 3008: a worker of the master broke while a minion authenticated, and never answers again.

Two threads of the worker have invalidated the import system's caches at the same time."""

NO_MATCH = "No minions matched the target"
"""The output of ``salt`` when none of the targets has an accepted key."""

OTHER_FAILURES = ("failed", "not_acknowledged", "needs_attention", "held_loss")
"""Keys of a mesh's report for which a converge has exit status 1, beside ``down``."""


class Fleet:
    """The Salt of one lab. Salt's own files are in ``salt`` below each machine's folder."""

    def __init__(
        self,
        underlay: Underlay,
        *,
        master_options: Mapping[str, Any] | None = None,
        minion_options: Mapping[str, Any] | None = None,
        configured: bool = True,
    ) -> None:
        """With *configured* False the master gets no configuration for wgmesh, and no pillar."""
        self.underlay = underlay
        self.minions = underlay.topology.minions
        self.master: Machine = underlay[underlay.topology.master]
        self._master_options = master_options or {}
        self._minion_options = minion_options or {}
        self._configured = configured
        self._log_begins = 0
        self._daemons: dict[str, subprocess.Popen[str]] = {}

    # --- daemons -----------------------------------------------------------------------------------------

    def set_policy(self, policy: Mapping[str, Any]) -> None:
        """Set the policy in the master's pillar: a mapping with the key ``wgmesh``."""
        saltconf.write_policy(self._folder(self.master), policy)

    def start_master(self) -> None:
        """Start a salt-master and wait until it listens."""
        folder = self._folder(self.master)
        saltconf.write_master(folder, self._master_options)
        if self._configured:
            saltconf.write_snippet(folder)
        self._log_begins = len(self.log(self.master.name))
        self._start("salt-master", self.master)
        wait_until(self._master_listens, 60, "the salt-master to listen")

    def start_minion(self, name: str, master: str | None = None) -> None:
        """Start a salt-minion on the machine. Its key may still be pending.

        *master* is the address of its master; None for the address in the topology.
        """
        machine = self.underlay[name]
        folder = self._folder(machine)
        master = master or self.underlay.topology.machine(self.master.name).address
        saltconf.write_minion(folder, saltconf.minion_config(folder, name, master, self._minion_options))
        self._start("salt-minion", machine)

    def stop_minion(self, name: str) -> None:
        """Stop the salt-minion on the machine. The mesh's processes keep running."""
        self._stop("salt-minion", self.underlay[name])

    def stop_master(self) -> None:
        """Stop the salt-master."""
        self._stop("salt-master", self.master)

    def start(self, names: Iterable[str] | None = None) -> None:
        """Start the master and *names* (all minions, if None), accept their keys, and wait until all answer."""
        listed = sorted(self.minions if names is None else names)
        for name in listed:
            self.start_minion(name)
        self.start_master()
        self.accept_keys(listed)
        self.await_minions(listed)

    def kill(self, names: Iterable[str]) -> None:
        """Kill Salt's processes on these machines, and no others, without a chance to clean up."""
        for name in names:
            self._kill("salt-master" if name == self.master.name else "salt-minion", self.underlay[name])
            self._daemons.pop(name).wait(10)

    def restart_minion(self, name: str, master: str | None = None) -> None:
        """Restart the salt-minion on the machine and wait until it answers."""
        self.stop_minion(name)
        self.start_minion(name, master)
        self.await_minions([name])

    def start_watcher(self, name: str) -> None:
        """Start the watcher of the machine, as systemd does at boot."""
        self.underlay[name].spawn(*WATCHER_COMMAND, log="watch.log")

    # --- keys --------------------------------------------------------------------------------------------

    def pending(self) -> set[str]:
        """Return the ids with pending keys."""
        return self._keys("minions_pre")

    def accepted(self) -> set[str]:
        """Return the ids with accepted keys."""
        return self._keys("minions")

    def accept_keys(self, names: Iterable[str] | None = None, deadline: float = 90) -> None:
        """Wait for the keys of *names* (all minions, if None) and accept them."""
        wanted = set(self.minions if names is None else names)
        wait_until(lambda: wanted <= self.pending() | self.accepted(), deadline, "the minions' keys to arrive")

        def all_accepted() -> bool:
            self._accept(wanted)
            return wanted <= self.accepted()

        wait_until(all_accepted, 10, "the keys to be accepted")

    def delete_key(self, name: str) -> None:
        """Delete the minion's key. If the minion starts again, its key is pending."""
        self._master_command("salt-key", "--yes", f"--delete={name}")
        wait_until(lambda: name not in self.accepted(), 10, f"the key of {name} to be gone")

    def reject_key(self, name: str) -> None:
        """Reject the minion's accepted key."""
        self._master_command("salt-key", "--yes", "--include-accepted", f"--reject={name}")
        wait_until(lambda: name not in self.accepted(), 10, f"the key of {name} to be rejected")

    def preseed(self, name: str) -> None:
        """Give the minion, which has not run yet, a key that the master has already accepted."""
        folder = self._folder(self.underlay[name]) / "pki"
        folder.mkdir(parents=True)
        self._master_command("salt-key", "--gen-keys=minion", f"--gen-keys-dir={folder}")
        accepted = self._folder(self.master) / "pki" / "minions"
        accepted.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "minion.pub", accepted / name)

    def await_minions(self, names: Iterable[str] | None = None, deadline: float = 60) -> None:
        """Wait until each of *names* (all minions, if None) answers test.ping."""
        wanted = sorted(self.minions if names is None else names)
        missing = set(wanted)

        def all_answer() -> bool:
            if BROKEN_WORKER in self.log(self.master.name)[self._log_begins :]:
                self.stop_master()
                self.start_master()
            self._accept(missing)
            answers = self.salt(sorted(missing), "test.ping", timeout=4)
            missing.difference_update(name for name, value in answers.items() if value is True)
            return not missing

        wait_until(all_answer, deadline, f"{', '.join(wanted)} to answer test.ping")

    # --- commands ----------------------------------------------------------------------------------------

    def salt(
        self, target: str | list[str], function: str, *args: str, timeout: float = 60, **kwargs: Any
    ) -> dict[str, Any]:
        """Run ``salt target function args`` and return minion → its return. A minion without an answer is missing."""
        where = ["-L", ",".join(target)] if isinstance(target, list) else [target]
        words = [*where, function, *args, *_keywords(kwargs)]
        options = ["--out=json", "--static", "--no-color", f"--timeout={timeout:g}", "--hide-timeout"]
        text = self._master_command("salt", *options, *words, check=False, timeout=timeout + 120)
        return {} if text.startswith(NO_MATCH) else _json(text) or {}

    def salt_run(self, function: str, *args: str, timeout: float = 300, **kwargs: Any) -> Any:
        """Run ``salt-run function args`` and return the runner's value, without its exit status.

        CommandFailed for an exit status other than 0, unless its only reason are nodes or links that are down.
        Scenarios run while some are down, and check the links themselves.
        """
        words = ["--out=json", "--no-color", function, *args, *_keywords(kwargs)]
        output, failure = self.master.attempt(*self.command("salt-run", *words), timeout=timeout)
        if failure is None:
            return _json(output)
        with contextlib.suppress(CommandFailed):
            if (value := failed_for_links_alone(_json(output))) is not None:
                return value
        raise failure

    def master_opts(self) -> dict[str, Any]:
        """Return the master's configuration, as Salt reads it."""
        opts: dict[str, Any] = salt.config.master_config(str(self._folder(self.master) / "master"))
        return opts

    def links(self, name: str, mesh: str) -> dict[str, Any]:
        """Return neighbour → the watcher's report of the link. Empty if there is no report."""
        path = Path(f"/proc/{self.underlay[name].pid}/root/run/wgmesh/{mesh}.json")
        with contextlib.suppress(OSError, ValueError):
            return dict(json.loads(path.read_text())["links"])
        return {}

    def log(self, name: str) -> str:
        """Return the log of the Salt daemon on the machine."""
        path = self._folder(self.underlay[name]) / "salt.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def command(self, program: str, *args: str) -> list[str]:
        """Return the command line of one of Salt's programs, for the master's machine."""
        return [str(BIN / program), "-c", str(self._folder(self.master)), *args]

    # --- inside ------------------------------------------------------------------------------------------

    def _folder(self, machine: Machine) -> Path:
        return machine.folder / "salt"

    def _accept(self, names: Iterable[str]) -> None:
        """Accept the pending keys of *names*.

        If a minion authenticates at the same time, Salt 3008 may write its key back as pending.
        """
        waiting = sorted(set(names) & self.pending())
        if waiting:
            self._master_command("salt-key", "--yes", f"--accept={','.join(waiting)}")

    def _keys(self, kind: str) -> set[str]:
        folder = self._folder(self.master) / "pki" / kind
        return {p.name for p in folder.iterdir()} if folder.is_dir() else set()

    def _master_command(self, program: str, *args: str, check: bool = True, timeout: float = 120) -> str:
        return self.master.run(*self.command(program, *args), check=check, timeout=timeout)

    def _master_listens(self) -> bool:
        if self._daemons[self.master.name].poll() is not None:
            raise CommandFailed(f"salt-master ended: {self.log(self.master.name)[-2000:]}")
        ports = self.master.run("ss", "-Hltn")
        return ":4505 " in ports and ":4506 " in ports

    def _start(self, program: str, machine: Machine) -> None:
        self._folder(machine).mkdir(parents=True, exist_ok=True)
        words = [str(BIN / program), "-c", str(self._folder(machine))]
        self._daemons[machine.name] = machine.spawn(*words, log="daemon.log")

    def _stop(self, program: str, machine: Machine) -> None:
        process = self._daemons.pop(machine.name)
        signal_child(process, signal.SIGTERM)
        wait_until(lambda: process.poll() is not None, 30, f"the {program} on {machine.name} to end")
        self._kill(program, machine)

    def _kill(self, program: str, machine: Machine) -> None:
        def none_left() -> bool:
            left = [p for p in tagged(machine.tag) if p.machine == machine.name and program in p.command]
            for process in left:
                kill(process.pid, signal.SIGKILL)
            return not left

        wait_until(none_left, 10, f"the {program} on {machine.name} to die")


def failed_for_links_alone(value: Any) -> dict[str, Any] | None:
    """Return what a runner returned with exit status 1, without ``retcode``; None if another reason led to it.

    The value is mesh → its report or status.
    """
    if not isinstance(value, dict) or value.get("retcode") != 1:
        return None
    meshes = {name: mesh for name, mesh in value.items() if name != "retcode"}
    if not all(isinstance(mesh, dict) for mesh in meshes.values()):
        return None
    other = any(mesh.get(key) for mesh in meshes.values() for key in OTHER_FAILURES)
    return None if other or not any(mesh.get("down") for mesh in meshes.values()) else meshes


def _keywords(kwargs: Mapping[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in kwargs.items()]


def _json(text: str) -> Any:
    try:
        return json.loads(text) if text.strip() else None
    except json.JSONDecodeError:
        raise CommandFailed(f"not JSON: {text[-2000:]}") from None
