"""Where this installation has its states and reactor files, and the master configuration that uses them."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import saltext_wgmesh
from saltext_wgmesh.core.errors import LedgerError

SHARE = "share/saltext-wgmesh"


def data_folder() -> Path:
    """The folder that contains ``states``, ``reactor`` and ``pillar-examples``; LedgerError if there is none.

    A wheel installs them below the environment's data path, or below the target of ``pip --target``, which Salt's
    onedir packages use. A checkout has them at its top.
    """
    package = Path(next(iter(saltext_wgmesh.__path__))).resolve()
    candidates = [
        Path(sysconfig.get_path("data")) / SHARE,
        package.parent / SHARE,
        *(parent / SHARE for parent in package.parents),
        package.parents[1],
    ]
    for folder in candidates:
        if (folder / "states" / "wgmesh" / "init.sls").is_file():
            return folder
    searched = ", ".join(str(candidate) for candidate in candidates[:2])
    raise LedgerError(f"the formula is not installed (searched {searched}): install the wheel, not the bare package")


def master_config() -> str:
    """The text for ``/etc/salt/master.d/wgmesh.conf``, with the paths of this installation."""
    folder = data_folder()
    template = (folder / "reactor" / "master.conf").read_text(encoding="utf-8")
    return template.replace("@DATA@", str(folder))
