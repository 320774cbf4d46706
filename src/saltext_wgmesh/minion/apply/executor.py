"""Make changes, by ``wg``, ``ip`` and /proc/sys."""

from __future__ import annotations

import logging
from dataclasses import replace

from saltext_wgmesh.core.device.commands import Command, CreateDevice, IpBatch, WgSet, WriteSysctl, commands
from saltext_wgmesh.core.device.diff import Change, Setting, SettingChange
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.minion.apply.comparison import NodeMesh
from saltext_wgmesh.minion.state import keys
from saltext_wgmesh.minion.system.host import Host

log = logging.getLogger(__name__)


def run_changes(node: NodeMesh, changes: tuple[Change, ...]) -> None:
    """Make all *changes*. HostError if one fails; for a name that does not resolve, only after all others are made."""
    unresolved = run_all(node, changes)
    if unresolved:
        raise HostError("; ".join(unresolved))


def run_all(node: NodeMesh, changes: tuple[Change, ...]) -> list[str]:
    """Make all *changes*, like ``run_changes``, but return the errors about names that do not resolve."""
    unresolved: list[str] = []
    # All interfaces of an apply get the same key, so the first change of it names the file for all.
    public_key = next((c.new for c in changes if isinstance(c, SettingChange) and c.setting is Setting.KEY), "")
    paths = replace(node.store.key_paths, key_file=str(keys.path_of(node.host, public_key)))
    for step in commands(changes, paths):
        log.debug("wgmesh %s: %s", node.mesh, step)
        try:
            _run_step(node.host, step)
        except HostError as error:
            # DNS may fail for one peer only, and the next apply tries again.
            if not (isinstance(step, WgSet) and step.resolves_name):
                raise
            unresolved.append(str(error))
    return unresolved


def _run_step(host: Host, step: Command) -> None:
    if isinstance(step, CreateDevice):
        create_device(host, step.name)
    elif isinstance(step, WriteSysctl):
        host.set_sysctl(step.key, step.value)
    elif isinstance(step, IpBatch):
        host.ip_batch(step.family, step.lines)
    else:
        host.run(*step.argv)


def create_device(host: Host, name: str) -> None:
    """Create the WireGuard device *name*, by the kernel, or by wireguard-go where the kernel has no WireGuard."""
    try:
        # The kernel is asked first: wireguard-go copies each packet to user space and back.
        host.run("ip", "link", "add", "dev", name, "type", "wireguard")
    except HostError as error:
        if not any(hint in str(error) for hint in ("Unknown device type", "not supported")):
            raise
        if not host.has("wireguard-go"):
            raise HostError(
                "this kernel has no WireGuard, and wireguard-go is not installed: apply the state wgmesh.tools"
            ) from error
        host.start("wireguard-go", name)
