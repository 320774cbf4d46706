"""Changes are made: by ``wg``, ``ip`` and /proc/sys."""

from __future__ import annotations

import logging
from dataclasses import replace

from saltext_wgmesh.core.diff import Change, Setting, SettingChange
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.script import IpBatch, MakeDevice, Step, WgSet, WriteSysctl, steps
from saltext_wgmesh.minion import keys
from saltext_wgmesh.minion.host import Host
from saltext_wgmesh.minion.store import Store

log = logging.getLogger(__name__)


def run(host: Host, changes: tuple[Change, ...], mesh: str) -> None:
    """Every change is made. A name that does not resolve is reported last: it is no reason to leave the rest undone."""
    unresolved = run_all(host, changes, mesh)
    if unresolved:
        raise HostError("; ".join(unresolved))


def run_all(host: Host, changes: tuple[Change, ...], mesh: str) -> list[str]:
    """The same; what did not resolve is returned."""
    unresolved: list[str] = []
    # One apply sets one key.
    key = next((c.new for c in changes if isinstance(c, SettingChange) and c.setting is Setting.KEY), "")
    secrets = replace(Store(host=host, mesh=mesh).secrets, key_file=str(keys.file_of(host, key)))
    for step in steps(changes, secrets):
        log.debug("wgmesh %s: %s", mesh, step)
        try:
            _do(host, step)
        except HostError as error:
            if not (isinstance(step, WgSet) and step.looks_up):
                raise
            unresolved.append(str(error))
    return unresolved


def _do(host: Host, step: Step) -> None:
    if isinstance(step, MakeDevice):
        make_device(host, step.name)
    elif isinstance(step, WriteSysctl):
        host.set_sysctl(step.key, step.value)
    elif isinstance(step, IpBatch):
        host.ip_batch(step.family, step.lines)
    else:
        host.run(*step.argv)


def make_device(host: Host, name: str) -> None:
    """A device of the kernel's WireGuard, or where it has none of wireguard-go's."""
    try:
        host.run("ip", "link", "add", "dev", name, "type", "wireguard")
    except HostError as error:
        if not any(hint in str(error) for hint in ("Unknown device type", "not supported")):
            raise
        if not host.has("wireguard-go"):
            raise HostError(
                "this kernel has no WireGuard, and wireguard-go is not installed: apply the state wgmesh.tools"
            ) from error
        host.start("wireguard-go", name)
