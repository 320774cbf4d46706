"""One node on a real master: policy → facts → plan → proof → ledger → pillar → apply, in one command."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.integration.conftest import MINION, POLICY, write_policy

pytestmark = pytest.mark.root


def states(result):
    """The returned states of a state run, by name."""
    return {value["name"]: value for value in result.data.values()}


def test_a_mesh_that_was_never_published_is_an_error_that_says_what_to_run(salt_run):
    """`status` before anything was published tells the next step, with exit status 1."""
    result = salt_run.run("wgmesh.status")
    assert result.returncode == 1
    assert "no mesh was published yet" in result.stdout
    assert "Traceback" not in result.stdout


def test_one_state_apply_leads_to_the_planned_interface(salt, minion, pillar_folder):
    """The first run makes the key, publishes the facts, and returns when the interface is up."""
    write_policy(pillar_folder, POLICY)
    result = salt.run("state.apply", "wgmesh", minion_tgt=MINION)
    assert result.returncode == 0, result
    assert states(result)["wgmesh-joined"]["result"] is True
    link = json.loads(subprocess.run(["ip", "-json", "addr", "show", "wg0"], capture_output=True, check=True).stdout)
    addresses = {entry["local"] for entry in link[0]["addr_info"] if entry["scope"] == "global"}
    assert "10.100.0.7" in addresses


def test_the_second_run_changes_nothing(salt, minion):
    """No state of a second run has changes, nor has a third one in test mode."""
    for arguments in ((), ("test=True",)):
        result = salt.run("state.apply", "wgmesh", *arguments, minion_tgt=MINION)
        assert {name: s["changes"] for name, s in states(result).items() if s["changes"]} == {}
        assert all(s["result"] is True for s in states(result).values())


def test_the_runner_tells_what_runs(salt_run):
    """status, explain, plan, verify and graph give plain data about the published mesh."""
    mesh = salt_run.run("wgmesh.status").data["wg0"]
    assert mesh["nodes"][MINION]["addresses"][0] == "10.100.0.7"
    assert mesh["not_acknowledged"] == []
    assert salt_run.run("wgmesh.plan").data["wg0"]["changes"] == {}
    assert salt_run.run("wgmesh.verify").data == {"wg0": {"next": "holds", "published": "holds"}}
    assert MINION in salt_run.run("wgmesh.graph").stdout


def test_a_run_with_nothing_to_do_publishes_and_pushes_nothing(salt_run):
    """converge on an unchanged fleet names no node."""
    assert salt_run.run("wgmesh.converge").data["wg0"]["published"] is False
    assert "applied" not in salt_run.run("wgmesh.converge").data["wg0"]


def test_a_broken_policy_lists_all_its_errors_and_changes_nothing(salt_run, pillar_folder):
    """Two mistakes give two lines with their paths and exit status 1; the generation stays."""
    before = salt_run.run("wgmesh.status").data["wg0"]["generation"]
    broken = yaml.safe_load(yaml.safe_dump(POLICY))
    broken["wgmesh"]["wg0"]["nodes"][MINION]["address"] = "10.99.0.1"
    broken["wgmesh"]["wg0"]["colour"] = "blue"
    write_policy(pillar_folder, broken)
    try:
        result = salt_run.run("wgmesh.converge")
        assert result.returncode == 1
        assert f"wgmesh:wg0:nodes:{MINION}:address" in result.stdout
        assert "wgmesh:wg0:colour" in result.stdout
        assert "Traceback" not in result.stdout
    finally:
        write_policy(pillar_folder, POLICY)
    assert salt_run.run("wgmesh.status").data["wg0"]["generation"] == before


@pytest.mark.parametrize("text", ["wgmesh: {}\n", "nothing: true\n", "{{ broken\n"])
def test_a_policy_that_vanished_or_does_not_render_changes_nothing(text, salt_run, pillar_folder):
    """An empty policy on a running mesh is a fault, not an instruction."""
    (pillar_folder / "policy.sls").write_text(text)
    try:
        result = salt_run.run("wgmesh.converge")
        assert result.returncode == 1
        assert "nothing was changed" in result.stdout
    finally:
        write_policy(pillar_folder, POLICY)
    assert salt_run.run("wgmesh.plan").data["wg0"]["changes"] == {}


def test_the_view_travels_as_pillar_and_the_private_key_nowhere(salt, salt_run, master, minion):
    """The node's own pillar holds its view; its private key is in no cache, log or return of either daemon."""
    pillar = salt.run("pillar.items", minion_tgt=MINION)
    assert "wgmesh_view" in pillar.data
    private = Path("/etc/wireguard/wgmesh.key").read_text().strip()
    for folder in (master.config["root_dir"], minion.config["root_dir"]):
        found = subprocess.run(["grep", "-rlF", private, str(folder)], capture_output=True, text=True, check=False)
        assert found.stdout == ""
