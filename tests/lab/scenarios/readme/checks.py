"""What each command of the README must have done: the table that makes an untested command impossible."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from ...lab import Lab
from ...mesh import Mesh
from .bare import ENVIRONMENT, bash

Check = Callable[[Mesh, str], None]
CHECKS: dict[str, Check] = {}
"""Command → what checks, on the mesh to be, what it printed and did. Its exit status was 0 already."""
NODES = ("db1", "relay1", "relay2", "web1")


def of(command: str) -> Callable[[Check], Check]:
    """The function checks *command*."""

    def enter(check: Check) -> Check:
        CHECKS[command] = check
        return check

    return enter


def documents(text: str) -> Iterator[Any]:
    """The JSON values in *text*, one after another: ``salt`` prints one a minion."""
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        yield value
        text = text[end:]


def as_json(lab: Lab, command: str) -> Any:
    """What the command says with ``--out=json``; the answers of several minions as one mapping."""
    values = list(documents(bash(lab.salt.master, f"{command} --out=json")))
    return values[0] if len(values) == 1 else {name: answer for value in values for name, answer in value.items()}


# --- the master ------------------------------------------------------------------------------------------


@of("salt-pip install saltext-wgmesh")
def _master_has_the_package(mesh: Mesh, said: str) -> None:
    assert "Successfully installed saltext-wgmesh-" in said


@of("salt-run wgmesh.config > /etc/salt/master.d/wgmesh.conf")
def _configuration_names_what_is_installed(mesh: Mesh, said: str) -> None:
    assert said == ""
    master = mesh.lab.salt.master
    config = yaml.safe_load(master.run("cat", "/etc/salt/master.d/wgmesh.conf"))
    assert sorted(config) == ["ext_pillar", "file_roots", "reactor", "schedule"]
    share = ENVIRONMENT / "share" / "saltext-wgmesh"
    assert config["file_roots"] == {"base": ["/srv/salt", f"{share}/states"]}
    master.run("test", "-f", f"{share}/states/wgmesh/init.sls")
    named = [file for reaction in config["reactor"] for files in reaction.values() for file in files]
    assert len(named) >= 5
    for file in named:
        master.run("test", "-f", file)


@of("systemctl restart salt-master")
def _master_serves_both_formulas(mesh: Mesh, said: str) -> None:
    """What other files of master.d set holds still, beside what the new one sets."""
    salt = mesh.lab.salt
    salt.await_minions()
    assert {"own", "wgmesh", "wgmesh.tools"} <= set(salt.salt("web1", "cp.list_states")["web1"])
    assert "owner" in salt.salt("web1", "pillar.ls")["web1"]


# --- the minions -----------------------------------------------------------------------------------------


@of("salt '*' pip.install saltext-wgmesh")
def _minions_have_the_package(mesh: Mesh, said: str) -> None:
    assert said.count("Successfully installed saltext-wgmesh-") == len(NODES)


@of("salt '*' saltutil.refresh_modules")
def _minions_know_the_functions(mesh: Mesh, said: str) -> None:
    """Without a restart."""
    known = mesh.lab.salt.salt("*", "sys.list_functions", "wgmesh")
    assert sorted(known) == sorted(NODES)
    assert all({"wgmesh.apply", "wgmesh.diff", "wgmesh.show"} <= set(names) for names in known.values())


@of("salt '*' state.apply wgmesh")
def _every_pair_reaches_each_other(mesh: Mesh, said: str) -> None:
    """When the command returns; by the planned paths, which for leaves apart from each other go by a relay."""
    assert re.findall(r"^Failed:\s+(\d+)$", said, re.M) == ["0"] * len(NODES), said
    assert mesh.faults(deadline=5) == []
    assert [len(addresses) for addresses in mesh.overlay().values()] == [1] * len(NODES)
    assert mesh.lab.salt.salt_run("wgmesh.paths")["web1"]["db1"][1:-1] in (["relay1"], ["relay2"])


# --- looking at it ---------------------------------------------------------------------------------------


@of("salt-run wgmesh.plan")
def _nothing_would_change(mesh: Mesh, said: str) -> None:
    answer = as_json(mesh.lab, "salt-run wgmesh.plan")["wg0"]
    assert (answer["changes"], answer["left_out"], answer["proof"]) == ({}, {}, "holds")


@of("salt-run wgmesh.converge")
def _nothing_was_to_do(mesh: Mesh, said: str) -> None:
    answer = as_json(mesh.lab, "salt-run wgmesh.converge")["wg0"]
    assert sorted(answer) == ["generation", "mesh", "published"]
    assert answer["published"] is False


@of("salt-run wgmesh.verify")
def _the_proof_holds(mesh: Mesh, said: str) -> None:
    answer = as_json(mesh.lab, "salt-run wgmesh.verify")
    assert answer == {"wg0": {"next": "holds", "published": "holds"}}


@of("salt-run wgmesh.status")
def _all_have_acknowledged(mesh: Mesh, said: str) -> None:
    answer = as_json(mesh.lab, "salt-run wgmesh.status")["wg0"]
    assert {name: node["role"] for name, node in answer["nodes"].items()} == {
        "db1": "leaf",
        "relay1": "relay",
        "relay2": "relay",
        "web1": "leaf",
    }
    assert answer["not_acknowledged"] == []


@of("salt-run wgmesh.explain relay1 relay2")
def _the_path_is_told(mesh: Mesh, said: str) -> None:
    assert "relay1 → relay2. All relays are linked with each other, by trunks." in said
    assert as_json(mesh.lab, "salt-run wgmesh.explain relay1 relay2")["path"] == ["relay1", "relay2"]


@of("salt-run wgmesh.whatif down=relay1")
def _one_relay_is_enough(mesh: Mesh, said: str) -> None:
    answer = as_json(mesh.lab, "salt-run wgmesh.whatif down=relay1")
    assert answer["cut_off"] == {}
    assert set(answer["rerouted"]) <= {"web1 → db1", "db1 → web1"}
    assert {path["after"] for path in answer["rerouted"].values()} <= {"web1 → relay2 → db1", "db1 → relay2 → web1"}
    assert {path["before"] for path in answer["rerouted"].values()} <= {"web1 → relay1 → db1", "db1 → relay1 → web1"}


@of("salt-run wgmesh.graph style=table")
def _each_node_has_its_row(mesh: Mesh, said: str) -> None:
    rows = [line.split()[0] for line in said.splitlines() if line.strip()]
    assert rows == ["node", *NODES]
    assert as_json(mesh.lab, "salt-run wgmesh.graph style=table").splitlines()[1].startswith("db1 ")


@of("salt '*' wgmesh.show")
def _each_node_shows_its_interfaces(mesh: Mesh, said: str) -> None:
    answers = as_json(mesh.lab, "salt '*' wgmesh.show")
    assert {name: sorted(meshes["wg0"]["devices"]) for name, meshes in answers.items()} == {
        "db1": ["wg0", "wg0-u1", "wg0-u2"],
        "relay1": ["wg0", "wg0-t2"],
        "relay2": ["wg0", "wg0-t1"],
        "web1": ["wg0", "wg0-u1", "wg0-u2"],
    }
    assert "203.0.113.10:51820" in said
    assert all(answers["web1"]["wg0"]["routes"])


@of("salt '*' wgmesh.diff")
def _no_node_differs_from_its_view(mesh: Mesh, said: str) -> None:
    answers = as_json(mesh.lab, "salt '*' wgmesh.diff")
    assert {name: meshes["wg0"]["changes"] for name, meshes in answers.items()} == {name: [] for name in NODES}
