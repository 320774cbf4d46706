"""The wg-quick files of this node, which restore its interfaces at boot, and their systemd units."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.device import wg_quick
from saltext_wgmesh.core.device.descriptions import ChangeText
from saltext_wgmesh.core.device.state import KernelState
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.minion.state.store import Store
from saltext_wgmesh.minion.system import files
from saltext_wgmesh.minion.system.host import Host


def write_boot_files(host: Host, mesh: str, at_boot: KernelState, *, dry_run: bool = False) -> tuple[ChangeText, ...]:
    """Write the files of *mesh* that bring up *at_boot*, enable their units, and delete all others of *mesh*.

    Return what changed. HostError if a file of that name is not ours. Where no systemd runs, there are no units.
    """
    texts = wg_quick.texts(mesh, at_boot, Store(host=host, mesh=mesh).key_paths)
    refuse_foreign(host, mesh, texts)
    entries: list[ChangeText] = []
    for name, text in texts.items():
        before = _read(host, name)
        if before != text:
            entries.append(_entry(host, name, before, text))
            if not dry_run:
                files.write_file(_path(host, name), text)
        if not dry_run:
            _enable(host, name)
    return (*entries, *remove_boot_files(host, mesh, keep=texts.keys(), dry_run=dry_run))


def remove_boot_files(
    host: Host, mesh: str, *, keep: Collection[str] = (), dry_run: bool = False
) -> tuple[ChangeText, ...]:
    """Delete the files of *mesh* except those of the interfaces to *keep*. Return what changed."""
    gone = [name for name in _ours(host, mesh) if name not in keep]
    for name in gone:
        if not dry_run:
            _disable(host, name)
            files.remove_file(_path(host, name))
    if not dry_run:
        # An interrupted write leaves a partial file, which no later write replaces if the interface is gone.
        for stem in {constants.stem(i) for i in (*gone, *keep, *Store(host=host, mesh=mesh).owned().interfaces)}:
            for pattern in (f"{stem}.conf", f"{stem}-[ut][0-9]*.conf"):
                files.remove_partials(host.conf_dir, pattern)
    return tuple(_entry(host, name, "", None) for name in gone)


def refuse_foreign(host: Host, mesh: str, interfaces: Iterable[str]) -> None:
    """Raise HostError if one of *interfaces* has a file that was not written for *mesh*."""
    foreign = [n for n in interfaces if _path(host, n).exists() and not is_ours(host, mesh, n)]
    if foreign:
        raise HostError(
            f"{_path(host, foreign[0])} exists and was not written for mesh {mesh}: nothing was changed; "
            "move it away, or have the mesh use another interface"
        )


def is_ours(host: Host, mesh: str, interface: str) -> bool:
    """Return whether *interface* has a file that was written for *mesh*."""
    return files.first_line(_path(host, interface)) == wg_quick.header(mesh)


def _ours(host: Host, mesh: str) -> list[str]:
    found = sorted(path.stem for path in host.conf_dir.glob("*.conf"))
    return [name for name in found if is_ours(host, mesh, name)]


def _entry(host: Host, interface: str, old: str | None, new: str | None) -> ChangeText:
    def size(text: str | None) -> str | None:
        return None if text is None else f"{len(text.splitlines())} lines"

    if new is None:
        return ChangeText(subject="boot", item=str(_path(host, interface)), old="present", new=None)
    return ChangeText(subject="boot", item=str(_path(host, interface)), old=size(old), new=size(new))


def _path(host: Host, interface: str) -> Path:
    return host.conf_dir / f"{interface}.conf"


def _read(host: Host, interface: str) -> str | None:
    return files.read_file(_path(host, interface))


def _enable(host: Host, interface: str) -> None:
    """Let systemd bring the interface up at boot. It is up already, so the unit itself is not started now."""
    if host.has_systemd and not (host.units_dir / f"wg-quick@{interface}.service").is_symlink():
        host.run("systemctl", "enable", f"wg-quick@{interface}")


def _disable(host: Host, interface: str) -> None:
    if host.has_systemd:
        host.run("systemctl", "disable", f"wg-quick@{interface}")
