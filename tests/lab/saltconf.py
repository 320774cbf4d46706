"""The configuration of the lab's salt-master and salt-minions: that of a real fleet, with shorter timers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from .machine import REPOSITORY

NO_SCHEDULE = {"schedule": {"wgmesh-converge": {"function": "wgmesh.converge", "enabled": False}}}
"""Overrides for a master that learns of changes by events alone, so that no scheduled run hides a lost event."""
MASTER_ID = "hq_master"
"""The id for which the master compiles its own pillar. Salt's default, too, is a name that ends in ``_master``."""


def master_config(folder: Path) -> dict[str, Any]:
    """Return the master's own configuration, with its files in *folder*. The part for wgmesh is in ``master.d``."""
    return {
        "id": MASTER_ID,
        "user": "root",
        **_paths(folder),
        "interface": "0.0.0.0",
        "worker_threads": 3,
        # A busy machine takes this long to begin a job on all nodes.
        "timeout": 15,
        "gather_job_timeout": 5,
        "auto_accept": False,
        "pillar_roots": {"base": [str(folder / "pillar")]},
        "default_include": "master.d/*.conf",
        "enable_gpu_grains": False,
        "enable_fqdns_grains": False,
        "log_level": "error",
        "log_level_logfile": "info",
    }


def minion_config(folder: Path, name: str, master: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a minion's configuration."""
    return {
        "id": name,
        "user": "root",
        "master": master,
        **_paths(folder),
        "acceptance_wait_time": 1,
        "acceptance_wait_time_max": 1,
        "random_reauth_delay": 1,
        "recon_default": 200,
        "recon_max": 2000,
        # Otherwise a minion whose NAT box lost its connections is without its master for minutes.
        "tcp_keepalive_idle": 5,
        "tcp_keepalive_intvl": 2,
        "tcp_keepalive_cnt": 3,
        "enable_gpu_grains": False,
        "enable_fqdns_grains": False,
        "log_level": "error",
        "log_level_logfile": "info",
        **overrides,
    }


def write_master(folder: Path, overrides: Mapping[str, Any]) -> None:
    """Write the master's own configuration.

    *overrides* take precedence over it and all other files in ``master.d``. Salt merges jobs of a schedule by name.
    """
    _write(folder / "master", master_config(folder))
    _write(folder / "master.d" / "zz-lab.conf", overrides)


def write_snippet(folder: Path) -> None:
    """Write wgmesh's part of the master's configuration, and the top file of the pillar."""
    snippet = (REPOSITORY / "reactor" / "master.conf").read_text().replace("@DATA@", str(REPOSITORY))
    (folder / "master.d" / "wgmesh.conf").write_text(snippet)
    write_top(folder)


def write_top(folder: Path) -> None:
    """Write the top file of the pillar, which gives the policy to the master alone."""
    top = {"base": {"*_master": [{"match": "glob"}, "policy"]}}
    _write(folder / "pillar" / "top.sls", top)


def write_policy(folder: Path, policy: Mapping[str, Any]) -> None:
    """Write *policy* into the pillar. The top file gives it to the master alone."""
    _write(folder / "pillar" / "policy.sls", policy)


def write_minion(folder: Path, config: Mapping[str, Any]) -> None:
    """Write the minion's configuration."""
    _write(folder / "minion", config)


def _paths(folder: Path) -> dict[str, str]:
    # Sockets have paths of at most 107 bytes: they go to the machine's own /run.
    return {
        "root_dir": "/",
        "pki_dir": str(folder / "pki"),
        "cachedir": str(folder / "cache"),
        "log_file": str(folder / "salt.log"),
        "key_logfile": str(folder / "key.log"),
        "pidfile": "/run/salt.pid",
        "sock_dir": "/run/salt",
        "extension_modules": str(folder / "extmods"),
    }


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(value), sort_keys=False))
