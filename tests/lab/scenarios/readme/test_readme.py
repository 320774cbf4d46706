"""A reader who does what README.md says, in its order, gets a mesh.

Every line of its bash blocks is run as it stands there, by bash on the master's machine, and every yaml block
is written where its first line says. What stands in for something else is this, and nothing more:

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
# The defaults, which the README counts on, in place of the lab's own: its id, and where the pillar is.
MASTER_OPTIONS = {"id": "", "pillar_roots": {"base": ["/srv/pillar"]}}
OWN = """
file_roots:
  base: [/srv/salt, /srv/own]
ext_pillar:
  - cmd_yaml: 'echo "owner: ops"'
"""
"""What the fleet's owner has in the master.d of this fleet."""


@pytest.fixture(scope="module")
def fleet(lab: Lab) -> Lab:
    """A fleet with a life of its own, where every minion answers, and on which this package never was."""
    wheels = lab.folder / "wheels"
    bare.wheel(wheels)
    bare.prepare(lab.salt, wheels)
    lab.salt.master.run("sh", "-c", "cat > /etc/salt/master.d/own.conf", stdin=OWN)
    lab.salt.master.run("sh", "-c", "mkdir -p /srv/own && echo 'own: test.nop' > /srv/own/own.sls")
    lab.salt.start()
    return lab


@pytest.fixture(scope="module")
def mesh(fleet: Lab) -> Mesh:
    """The mesh that the README's policy describes."""
    return Mesh(lab=fleet, name="wg0", networks=("10.100.0.0/16",), members=NODES)


def named(step: Step) -> str:
    """The step's name in the report."""
    return step.bare if isinstance(step, Command) else step.path


def test_every_command_has_its_check():
    """In the README and in the table of checks stand the same commands."""
    assert sorted(set(COMMANDS)) == sorted(CHECKS)


def test_the_fleet_does_not_know_the_package(fleet: Lab):
    """Neither master nor minions: what follows is the README's doing."""
    assert fleet.salt.salt("*", "sys.list_functions", "wgmesh") == {name: [] for name in NODES}
    assert "is not available" in fleet.salt.salt_run("wgmesh.config")


@pytest.mark.parametrize("step", README, ids=named)
def test_step(mesh: Mesh, step: Step):
    """The command ends with status 0 and did what it promises; the file is written."""
    master = mesh.lab.salt.master
    if isinstance(step, File):
        master.run("sh", "-c", 'cat > "$0"', step.path, stdin=step.text)
        return
    if step.bare == RESTART:
        mesh.lab.salt.stop_master()
        mesh.lab.salt.start_master()
        said = ""
    else:
        said = bare.bash(master, step.line)
    print(said)
    CHECKS[step.bare](mesh, said)


def test_a_second_run_changes_nothing(mesh: Mesh):
    before = mesh.links()
    again = mesh.apply()
    assert failures(again, NODES) == []
    assert changes(again) == []
    assert mesh.links() == before
