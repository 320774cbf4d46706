"""The wg-quick files of this node, and whether systemd starts them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from saltext_wgmesh.core import names, wgquick
from saltext_wgmesh.core.device import NodeState
from saltext_wgmesh.core.errors import HostError
from saltext_wgmesh.core.wording import Entry
from saltext_wgmesh.minion import files
from saltext_wgmesh.minion.host import Host
from saltext_wgmesh.minion.store import Store


def write(host: Host, mesh: str, wanted: NodeState, *, dry_run: bool = False) -> tuple[Entry, ...]:
    """The files of *mesh* are those of *wanted* and no others, enabled where systemd runs. Returns what changed."""
    texts = wgquick.texts(mesh, wanted, Store(host=host, mesh=mesh).secrets)
    refuse_foreign(host, mesh, texts)
    entries: list[Entry] = []
    for name, text in texts.items():
        before = _read(host, name)
        if before != text:
            entries.append(_entry(host, name, before, text))
            if not dry_run:
                files.write(_path(host, name), text)
        if not dry_run:
            _enable(host, name)
    return (*entries, *remove(host, mesh, keep=texts.keys(), dry_run=dry_run))


def remove(host: Host, mesh: str, *, keep: Collection[str] = (), dry_run: bool = False) -> tuple[Entry, ...]:
    """No file of *mesh* is there but those of the interfaces to *keep*. Returns what changed."""
    gone = [name for name in _ours(host, mesh) if name not in keep]
    for name in gone:
        if not dry_run:
            _disable(host, name)
            files.remove(_path(host, name))
    if not dry_run:
        for stem in {names.stem(i) for i in (*gone, *keep, *Store(host=host, mesh=mesh).owned().interfaces)}:
            for pattern in (f"{stem}.conf", f"{stem}-[ut][0-9]*.conf"):
                files.remove_partials(host.conf_dir, pattern)
    return tuple(_entry(host, name, "", None) for name in gone)


def refuse_foreign(host: Host, mesh: str, interfaces: Iterable[str]) -> None:
    """HostError if a file for one of *interfaces* is there that was not written for *mesh*."""
    foreign = [n for n in interfaces if _path(host, n).exists() and not is_ours(host, mesh, n)]
    if foreign:
        raise HostError(
            f"{_path(host, foreign[0])} exists and was not written for mesh {mesh}: nothing was changed; "
            "move it away, or have the mesh use another interface"
        )


def is_ours(host: Host, mesh: str, interface: str) -> bool:
    """Whether the file of *interface* is there and was written for *mesh*."""
    return files.first_line(_path(host, interface)) == wgquick.header(mesh)


def _ours(host: Host, mesh: str) -> list[str]:
    found = sorted(path.stem for path in host.conf_dir.glob("*.conf"))
    return [name for name in found if is_ours(host, mesh, name)]


def _entry(host: Host, interface: str, old: str | None, new: str | None) -> Entry:
    def told(text: str | None) -> str | None:
        return None if text is None else f"{len(text.splitlines())} lines"

    if new is None:
        return Entry(subject="boot", item=str(_path(host, interface)), old="present", new=None)
    return Entry(subject="boot", item=str(_path(host, interface)), old=told(old), new=told(new))


def _path(host: Host, interface: str) -> Path:
    return host.conf_dir / f"{interface}.conf"


def _read(host: Host, interface: str) -> str | None:
    return files.read(_path(host, interface))


def _enable(host: Host, interface: str) -> None:
    """systemd brings the interface up at boot. It is up already, so the unit itself is not started now."""
    if host.has_systemd and not (host.units_dir / f"wg-quick@{interface}.service").is_symlink():
        host.run("systemctl", "enable", f"wg-quick@{interface}")


def _disable(host: Host, interface: str) -> None:
    if host.has_systemd:
        host.run("systemctl", "disable", f"wg-quick@{interface}")
