"""Whether a minion can have a part in a mesh, as its loader asks before it offers any function."""

from __future__ import annotations

from typing import Any

import salt.utils.platform


def virtual(opts: dict[str, Any], name: str) -> str | tuple[bool, str]:
    """Return *name* on a minion of a Linux host; else False with the reason.

    A proxy minion stands for another device. It would publish the key of the host that it runs on, and remove that
    host's mesh.
    """
    if opts.get("proxy") or salt.utils.platform.is_proxy():
        return False, "wgmesh: a proxy minion has no part in a mesh: install it on the minion of the host itself"
    if not salt.utils.platform.is_linux():
        return False, "wgmesh: it drives the network of Linux, and this minion runs on another system"
    return name
