"""A real salt-master and a real salt-minion of pytest-salt-factories, in namespaces of this process.

The whole run first moves into a network and mount namespace of its own. Devices, routes and files in /etc/wireguard
that the minion makes there end with the process.
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

from saltext_wgmesh.master.operator import install
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
    """Return the configuration by which Salt's programs are those beside this Python."""
    return {
        "code_dir": str(Path(__file__).resolve().parents[2]),
        "inject_sitecustomize": False,
        "start_timeout": 60,
        "scripts_dir": str(Path(sys.executable).parent),
    }


@pytest.fixture(scope="session", autouse=True)
def _no_device_left():
    """End the watcher, its supervisor and all devices after the run.

    A wireguard-go process ends with its device. Otherwise these processes would outlive this one, with its namespaces.
    """
    yield
    sandbox.end_watcher()
    shown = subprocess.run(["wg", "show", "interfaces"], capture_output=True, text=True, check=True)
    for device in shown.stdout.split():
        subprocess.run(["ip", "link", "del", device], check=True)


@pytest.fixture(scope="package")
def master(salt_factories):
    """Run a master with the configuration that ``wgmesh.config`` prints."""
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
    # No policy while the minion starts. Otherwise its start event would enrol it.
    write_policy(pillar, {"wgmesh": {}})
    with factory.started():
        yield factory


def write_policy(pillar: Path, policy) -> None:
    """Write the policy into the master's pillar."""
    (pillar / "policy.sls").write_text(yaml.safe_dump(policy, sort_keys=False))


@pytest.fixture(scope="package")
def minion(master):
    """Run a minion with an accepted key."""
    overrides = {
        "enable_fqdns_grains": False,
        "enable_gpu_grains": False,
        # Salt's default. The minion calls its beacons each second and counts each call as this many seconds: at the
        # 0.05 of pytest-salt-factories a beacon with an interval of 1 s runs every 20 s.
        "loop_interval": 1,
    }
    factory = master.salt_minion_daemon(MINION, overrides=overrides)
    with factory.started():
        yield factory


@pytest.fixture(scope="package")
def salt(master, minion):
    """Return the ``salt`` command."""
    return master.salt_cli(timeout=90)


@pytest.fixture(scope="package")
def salt_run(master, minion):
    """Return the ``salt-run`` command."""
    return master.salt_run_cli(timeout=90)


@pytest.fixture(scope="package")
def pillar_folder(master):
    """Return the folder of the master's pillar files."""
    return Path(master.pillar_tree.base.paths[0])
