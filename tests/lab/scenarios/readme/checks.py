"""The effects that each command of the README must have. The table makes an untested command impossible."""

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
"""Command → the function that checks its output and its effects on the mesh. The exit status was 0."""
NODES = ("db1", "relay1", "relay2", "web1")


def of(command: str) -> Callable[[Check], Check]:
    """Return a decorator that enters the function as the check of *command*."""

    def enter(check: Check) -> Check:
        CHECKS[command] = check
        return check

    return enter


def documents(text: str) -> Iterator[Any]:
    """Yield the JSON values in *text*: ``salt`` prints one per minion."""
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        yield value
        text = text[end:]


def as_json(lab: Lab, command: str) -> Any:
    """Return the output of the command with ``--out=json``. Answers of several minions become one mapping."""
    values = list(documents(bash(lab.salt.master, f"{command} --out=json")))
    return values[0] if len(values) == 1 else {name: answer for value in values for name, answer in value.items()}


# --- the master ------------------------------------------------------------------------------------------


@of("salt-pip install saltext-wgmesh")
def _master_has_the_package(mesh: Mesh, output: str) -> None:
    assert "Successfully installed saltext-wgmesh-" in output


@of("salt-run wgmesh.config > /etc/salt/wgmesh.conf && mv /etc/salt/wgmesh.conf /etc/salt/master.d/")
def _configuration_names_what_is_installed(mesh: Mesh, output: str) -> None:
    assert output == ""
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
def _master_serves_both_formulas(mesh: Mesh, output: str) -> None:
    """Settings of other files in master.d are in force, beside those of the new one."""
    salt = mesh.lab.salt
    salt.await_minions()
    assert {"own", "wgmesh", "wgmesh.tools"} <= set(salt.salt("web1", "cp.list_states")["web1"])
    assert "owner" in salt.salt("web1", "pillar.ls")["web1"]


# --- the minions -----------------------------------------------------------------------------------------


@of("salt '*' pip.install saltext-wgmesh")
def _minions_have_the_package(mesh: Mesh, output: str) -> None:
    assert output.count("Successfully installed saltext-wgmesh-") == len(NODES)


@of("salt '*' saltutil.refresh_modules")
def _minions_know_the_functions(mesh: Mesh, output: str) -> None:
    """The minions know the functions without a restart."""
    known = mesh.lab.salt.salt("*", "sys.list_functions", "wgmesh")
    assert sorted(known) == sorted(NODES)
    assert all({"wgmesh.apply", "wgmesh.diff", "wgmesh.show"} <= set(names) for names in known.values())


@of("salt '*' state.apply wgmesh")
def _every_pair_reaches_each_other(mesh: Mesh, output: str) -> None:
    """All pairs use the planned paths when the command returns. Between the two leaves these go through a relay."""
    assert re.findall(r"^Failed:\s+(\d+)$", output, re.M) == ["0"] * len(NODES), output
    assert mesh.faults(deadline=5) == []
    assert [len(addresses) for addresses in mesh.overlay().values()] == [1] * len(NODES)
    assert mesh.lab.salt.salt_run("wgmesh.paths")["web1"]["db1"][1:-1] in (["relay1"], ["relay2"])


# --- looking at it ---------------------------------------------------------------------------------------


@of("salt-run wgmesh.plan")
def _nothing_would_change(mesh: Mesh, output: str) -> None:
    answer = as_json(mesh.lab, "salt-run wgmesh.plan")["wg0"]
    assert sorted(answer) == ["generation", "proof"]
    assert answer["proof"] == "holds"


@of("salt-run wgmesh.converge")
def _nothing_was_to_do(mesh: Mesh, output: str) -> None:
    answer = as_json(mesh.lab, "salt-run wgmesh.converge")["wg0"]
    assert sorted(answer) == ["generation", "mesh", "published"]
    assert answer["published"] is False


@of("salt-run wgmesh.verify")
def _the_proof_holds(mesh: Mesh, output: str) -> None:
    answer = as_json(mesh.lab, "salt-run wgmesh.verify")
    assert answer == {"wg0": {"next": "holds", "published": "holds"}}


@of("salt-run wgmesh.status")
def _all_have_acknowledged(mesh: Mesh, output: str) -> None:
    answer = as_json(mesh.lab, "salt-run wgmesh.status")["wg0"]
    assert {name: node["role"] for name, node in answer["nodes"].items()} == {
        "db1": "leaf",
        "relay1": "relay",
        "relay2": "relay",
        "web1": "leaf",
    }
    assert sorted(answer) == ["generation", "nodes", "published_at"]


@of("salt-run wgmesh.explain relay1 relay2")
def _the_path_is_explained(mesh: Mesh, output: str) -> None:
    assert output.count("All relays are linked with each other, by trunks.") == 1
    assert as_json(mesh.lab, "salt-run wgmesh.explain relay1 relay2")["path"] == ["relay1", "relay2"]


@of("salt-run wgmesh.whatif down=relay1")
def _one_relay_is_enough(mesh: Mesh, output: str) -> None:
    answer = as_json(mesh.lab, "salt-run wgmesh.whatif down=relay1")
    assert "cut_off" not in answer
    answer.setdefault("rerouted", {})
    assert set(answer["rerouted"]) <= {"web1 → db1", "db1 → web1"}
    assert {path["after"] for path in answer["rerouted"].values()} <= {"web1 → relay2 → db1", "db1 → relay2 → web1"}
    assert {path["before"] for path in answer["rerouted"].values()} <= {"web1 → relay1 → db1", "db1 → relay1 → web1"}


@of("salt-run wgmesh.ports")
def _ports_of_relays_are_listed(mesh: Mesh, output: str) -> None:
    """The leaves call port 51820 of both relays. The relays call each other at the ports after it.

    Which relay has which port depends on the order in which they came.
    """
    answer = as_json(mesh.lab, "salt-run wgmesh.ports")["wg0"]
    assert all("51820/udp" in ports for ports in answer.values())
    trunks = {node: sorted(set(ports) - {"51820/udp"}) for node, ports in answer.items()}
    assert sorted(trunks) == ["relay1", "relay2"]
    assert sorted(trunks.values()) == [["51821/udp"], ["51822/udp"]]
    assert [caller.split()[0] for caller in answer["relay1"]["51820/udp"]] == ["db1", "web1"]


@of("salt-run wgmesh.graph style=table")
def _each_node_has_its_row(mesh: Mesh, output: str) -> None:
    rows = [line.split()[0] for line in output.splitlines() if line.strip()]
    assert rows == ["node", *NODES]
    assert as_json(mesh.lab, "salt-run wgmesh.graph style=table").splitlines()[1].startswith("db1 ")


@of("salt '*' wgmesh.show")
def _each_node_shows_its_interfaces(mesh: Mesh, output: str) -> None:
    answers = as_json(mesh.lab, "salt '*' wgmesh.show")
    devices = {name: sorted(meshes["wg0"]["devices"]) for name, meshes in answers.items()}
    assert devices["db1"] == devices["web1"] == ["wg0", "wg0-u1", "wg0-u2"]
    # The numbers of relays follow the order in which they came.
    assert sorted([devices["relay1"], devices["relay2"]]) == [["wg0", "wg0-t1"], ["wg0", "wg0-t2"]]
    assert "203.0.113.10:51820" in output
    assert all(answers["web1"]["wg0"]["routes"])


@of("salt '*' wgmesh.diff")
def _no_node_differs_from_its_view(mesh: Mesh, output: str) -> None:
    answers = as_json(mesh.lab, "salt '*' wgmesh.diff")
    assert {name: meshes["wg0"]["changes"] for name, meshes in answers.items()} == {name: [] for name in NODES}
