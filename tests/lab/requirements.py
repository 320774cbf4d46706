"""The programs and rights that a host needs for a lab."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

PACKAGES = {
    "conntrack": "conntrack",
    "ip": "iproute2",
    "ss": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "ping": "iputils-ping",
    "sysctl": "procps",
    "unshare": "util-linux",
    "wg": "wireguard-tools",
}
"""Program → the Debian package that brings it."""


def missing_packages() -> list[str]:
    """Debian packages that must be installed first, sorted."""
    needed = {package for program, package in PACKAGES.items() if not shutil.which(program)}
    if not Path("/sys/module/wireguard").exists() and not shutil.which("wireguard-go"):
        needed.add("wireguard-go")
    return sorted(needed)


def obstacle() -> str | None:
    """Why no lab can run here, and what to do; None if one can."""
    if os.geteuid() != 0:
        return "a lab needs root: it makes network namespaces and WireGuard devices"
    if packages := missing_packages():
        return f"programs are missing: apt-get install --no-install-recommends {' '.join(packages)}"
    if not Path("/dev/net/tun").exists() and not Path("/sys/module/wireguard").exists():
        return "no /dev/net/tun and no WireGuard module: load the module `tun`, or give the container that device"
    return None
