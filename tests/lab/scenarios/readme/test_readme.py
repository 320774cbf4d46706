"""The commands and files of README.md, executed in order, make a mesh.

Every line of its bash blocks is run unchanged, by bash on the master's machine. Every yaml block is written to the path
in its first line. Only these are replaced:

- ``salt-pip`` is the pip of the environment that Salt runs in (the program itself refuses to work outside a onedir);
- ``systemctl restart salt-master`` has the lab stop and start its salt-master;
- the package index is a folder with the wheel of this checkout.
"""

from __future__ import annotations

import pytest

from ...lab import Lab
from ...machine import REPOSITORY
from ...mesh import Mesh, changes, failures
from ...topology import MachineSpec, Nat, Port, Topology, host
from . import bare
from .checks import CHECKS, NODES
from .document import Command, File, Step, steps

PUBLIC = "internet"
README = steps(REPOSITORY / "README.md")
COMMANDS = [step.bare for step in README if isinstance(step, Command)]
RESTART = "systemctl restart salt-master"


def router(name: str, outside: str, inside: str, lan: str) -> MachineSpec:
    """A router that hides its LAN."""
    ports = (Port(segment=PUBLIC, addresses=(f"{outside}/24",)), Port(segment=name, addresses=(f"{inside}/24",)))
    return MachineSpec(name=name, ports=ports, forward=True, nat=Nat(outside="eth0", hidden=(lan,)))


TOPOLOGY = Topology(
    master="master",
    minions=NODES,
    machines=(
        host("master", PUBLIC, "203.0.113.5/24"),
        host("relay1", PUBLIC, "203.0.113.10/24"),
        host("relay2", PUBLIC, "203.0.113.11/24"),
        router("office", "203.0.113.1", "192.168.1.1", "192.168.1.0/24"),
        router("cellar", "203.0.113.2", "192.168.2.1", "192.168.2.0/24"),
        host("web1", "office", "192.168.1.11/24", "192.168.1.1"),
        host("db1", "cellar", "192.168.2.11/24", "192.168.2.1"),
    ),
)
CONFIGURED = False
# The README assumes Salt's defaults for the master's id and the pillar's folder, in place of the lab's.
MASTER_OPTIONS = {"id": "", "pillar_roots": {"base": ["/srv/pillar"]}}
OWN = """
file_roots:
  base: [/srv/salt, /srv/own]
ext_pillar:
  - cmd_yaml: 'echo "owner: ops"'
"""
"""A file that the fleet has in its master.d before the installation."""


@pytest.fixture(scope="module")
def fleet(lab: Lab) -> Lab:
    """Return a fleet with other uses, without the package, where every minion answers."""
    wheels = lab.folder / "wheels"
    bare.wheel(wheels)
    bare.prepare(lab.salt, wheels)
    lab.salt.master.run("sh", "-c", "cat > /etc/salt/master.d/own.conf", stdin=OWN)
    lab.salt.master.run("sh", "-c", "mkdir -p /srv/own && echo 'own: test.nop' > /srv/own/own.sls")
    lab.salt.start()
    return lab


@pytest.fixture(scope="module")
def mesh(fleet: Lab) -> Mesh:
    """Return the mesh of the README's policy."""
    return Mesh(lab=fleet, name="wg0", networks=("10.100.0.0/16",), members=NODES)


def named(step: Step) -> str:
    """Return the step's name in the report."""
    return step.bare if isinstance(step, Command) else step.path


def test_every_command_has_check():
    """The README and the table of checks have the same commands."""
    assert sorted(set(COMMANDS)) == sorted(CHECKS)


def test_package_is_not_installed(fleet: Lab):
    """Neither master nor minions have the package before the README's first step."""
    assert fleet.salt.salt("*", "sys.list_functions", "wgmesh") == {name: [] for name in NODES}
    assert "is not available" in fleet.salt.salt_run("wgmesh.config")


@pytest.mark.parametrize("step", README, ids=named)
def test_step_has_its_effect(mesh: Mesh, step: Step):
    """A command ends with status 0 and has the effects of its check. A file is written."""
    master = mesh.lab.salt.master
    if isinstance(step, File):
        master.run("sh", "-c", 'cat > "$0"', step.path, stdin=step.text)
        return
    if step.bare == RESTART:
        mesh.lab.salt.stop_master()
        mesh.lab.salt.start_master()
        output = ""
    else:
        output = bare.bash(master, step.line)
    print(output)
    CHECKS[step.bare](mesh, output)


def test_second_apply_changes_nothing(mesh: Mesh):
    """A second apply of the formula has no changes and recreates no interface."""
    before = mesh.links()
    again = mesh.apply()
    assert failures(again, NODES) == []
    assert changes(again) == []
    assert mesh.links() == before
