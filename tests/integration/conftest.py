"""A real salt-master and a real salt-minion from pytest-salt-factories, inside namespaces of this process.

The whole run moves into a network and mount namespace of its own first: what the minion makes there
(devices, routes, /etc/wireguard) is gone with the process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from saltfactories.utils import random_string

from saltext_wgmesh.master import install
from tests import sandbox

MINION = "node1"
POLICY = {
    "wgmesh": {
        "wg0": {
            "network": ["10.100.0.0/16", "fd00:64::/64"],
            "topology": "full",
            "nodes": {MINION: {"endpoint": "192.0.2.1", "address": "10.100.0.7"}},
        }
    }
}


if os.geteuid() == 0:
    # At import, before pytest-salt-factories opens the sockets by which the daemons report that they have started.
    sandbox.enter()


def pytest_collection_modifyitems(items):
    """Namespaces need root."""
    if os.geteuid() != 0:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs root for network namespaces"))


@pytest.fixture(scope="session")
def salt_factories_config():
    """Salt's programs are those beside this Python."""
    return {
        "code_dir": str(Path(__file__).resolve().parents[2]),
        "inject_sitecustomize": False,
        "start_timeout": 60,
        "scripts_dir": str(Path(sys.executable).parent),
    }


@pytest.fixture(scope="session", autouse=True)
def _no_device_left():
    """A device ends its wireguard-go, which would else outlive this process and hold its namespaces; so would the
    watcher and its supervisor."""
    yield
    sandbox.end_watcher()
    shown = subprocess.run(["wg", "show", "interfaces"], capture_output=True, text=True, check=True)
    for device in shown.stdout.split():
        subprocess.run(["ip", "link", "del", device], check=True)


@pytest.fixture(scope="package")
def master(salt_factories):
    """A running master with the snippet that ``wgmesh.config`` prints."""
    snippet = yaml.safe_load(install.master_config())
    factory = salt_factories.salt_master_daemon(
        random_string("master-"),
        defaults={"open_mode": False, "auto_accept": True},
        overrides={
            "ext_pillar": snippet["ext_pillar"],
            "reactor": snippet["reactor"],
            "schedule": {},
            "worker_threads": 3,
        },
    )
    roots = factory.state_tree.base.paths[0]
    shutil.copytree(install.data_folder() / "states" / "wgmesh", Path(roots) / "wgmesh")
    pillar = Path(factory.pillar_tree.base.paths[0])
    (pillar / "top.sls").write_text(yaml.safe_dump({"base": {f"{factory.config['id']}": ["policy"]}}))
    # None while the minion starts, or it would be enrolled by that alone.
    write_policy(pillar, {"wgmesh": {}})
    with factory.started():
        yield factory


def write_policy(pillar: Path, policy) -> None:
    """The master's pillar holds this policy."""
    (pillar / "policy.sls").write_text(yaml.safe_dump(policy, sort_keys=False))


@pytest.fixture(scope="package")
def minion(master):
    """A running minion whose key the master accepted."""
    factory = master.salt_minion_daemon(MINION, overrides={"enable_fqdns_grains": False, "enable_gpu_grains": False})
    with factory.started():
        yield factory


@pytest.fixture(scope="package")
def salt(master, minion):
    """The ``salt`` command."""
    return master.salt_cli(timeout=90)


@pytest.fixture(scope="package")
def salt_run(master, minion):
    """The ``salt-run`` command."""
    return master.salt_run_cli(timeout=90)


@pytest.fixture(scope="package")
def pillar_folder(master):
    """Where the master's pillar files are."""
    return Path(master.pillar_tree.base.paths[0])
