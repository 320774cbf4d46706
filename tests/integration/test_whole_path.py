"""One node on a real master: policy → facts → plan → proof → ledger → pillar → apply, in one command."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from saltext_wgmesh.master.operator.proof_verdict import NOTHING_TO_PROVE
from tests.integration.conftest import MINION, POLICY, write_policy

pytestmark = pytest.mark.root


def states(result):
    """Return the states of a state run by name."""
    return {value["name"]: value for value in result.data.values()}


def test_status_before_first_plan_is_an_error(salt_run):
    """``status`` before the first published plan is an error with exit status 1 and no traceback."""
    result = salt_run.run("wgmesh.status")
    assert result.returncode == 1
    assert "no mesh is published yet" in result.stdout
    assert "Traceback" not in result.stdout


def test_state_apply_makes_planned_interface(salt, minion, pillar_folder):
    """The first run makes the key, publishes the facts, and returns when the planned interface is up."""
    write_policy(pillar_folder, POLICY)
    result = salt.run("state.apply", "wgmesh", minion_tgt=MINION)
    assert result.returncode == 0, result
    assert states(result)["wgmesh-joined"]["result"] is True
    link = json.loads(subprocess.run(["ip", "-json", "addr", "show", "wg0"], capture_output=True, check=True).stdout)
    addresses = {entry["local"] for entry in link[0]["addr_info"] if entry["scope"] == "global"}
    assert "10.100.0.7" in addresses


def test_second_run_changes_nothing(salt, minion):
    """No state of a second run has changes, and neither has a run in test mode."""
    for arguments in ((), ("test=True",)):
        result = salt.run("state.apply", "wgmesh", *arguments, minion_tgt=MINION)
        assert {name: s["changes"] for name, s in states(result).items() if s["changes"]} == {}
        assert all(s["result"] is True for s in states(result).values())


def test_runner_reports_published_mesh(salt_run):
    """status, plan, verify and graph return plain data about the published mesh."""
    mesh = salt_run.run("wgmesh.status").data["wg0"]
    assert mesh["nodes"][MINION]["addresses"][0] == "10.100.0.7"
    assert "not_acknowledged" not in mesh
    assert "changes" not in salt_run.run("wgmesh.plan").data["wg0"]
    assert salt_run.run("wgmesh.verify").data == {"wg0": {"next": NOTHING_TO_PROVE, "published": NOTHING_TO_PROVE}}
    assert MINION in salt_run.run("wgmesh.graph").stdout


def test_converge_without_changes_pushes_nothing(salt_run):
    """A converge on an unchanged fleet publishes no plan and pushes to no node."""
    assert salt_run.run("wgmesh.converge").data["wg0"]["published"] is False
    assert "applied" not in salt_run.run("wgmesh.converge").data["wg0"]


def test_invalid_policy_lists_all_errors(salt_run, pillar_folder):
    """Two mistakes are two lines with their paths, and exit status 1. The generation is unchanged."""
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


@pytest.mark.parametrize(
    "text", ["wgmesh: {}\n", "nothing: true\n", "{{ broken\n"], ids=["empty", "absent", "unrenderable"]
)
def test_missing_policy_changes_nothing(text, salt_run, pillar_folder):
    """A policy that is empty, absent or does not render is an error on a running mesh, and changes nothing."""
    (pillar_folder / "policy.sls").write_text(text)
    try:
        result = salt_run.run("wgmesh.converge")
        assert result.returncode == 1
        assert "nothing was changed" in result.stdout
    finally:
        write_policy(pillar_folder, POLICY)
    assert "changes" not in salt_run.run("wgmesh.plan").data["wg0"]


def test_private_key_stays_on_its_node(salt, salt_run, master, minion):
    """The node's pillar has its view. The private key is in no cache, log or return of either daemon."""
    pillar = salt.run("pillar.items", minion_tgt=MINION)
    assert "wgmesh_view" in pillar.data
    private = Path("/etc/wireguard/wgmesh.key").read_text().strip()
    for folder in (master.config["root_dir"], minion.config["root_dir"]):
        found = subprocess.run(["grep", "-rlF", private, str(folder)], capture_output=True, text=True, check=False)
        assert found.stdout == ""
