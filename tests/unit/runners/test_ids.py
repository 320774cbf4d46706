"""Every function of the runner takes every minion id, as Salt's command line passes it on."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import salt.utils.args
from salt.exceptions import NotImplemented

from saltext_wgmesh.master.environment import Environment
from saltext_wgmesh.master.fleet import jobs
from saltext_wgmesh.master.operator import drain, merged_config, run_converge, status
from saltext_wgmesh.master.records import inventory
from saltext_wgmesh.master.records.ledger import Ledger
from saltext_wgmesh.runners import wgmesh as runner
from tests.unit.harness.fake_master import FakeMaster, mine

IDS = (
    "1001",
    "010",
    "0x10",
    "0b101",
    "1e3",
    "10.5",
    "1.0",
    "12:30",
    "1_000",
    "yes",
    "Off",
    "null",
    "~",
    "2026-01-01",
    "Web_1.EXAMPLE.org",
    "w" * 83,
    "b\u00fcro-s\u00fcd",
    "my host",
    "a--b",
    "web,1",
    "{x}",
    "#1",
)


def refused(function: Callable[..., Any], *args: Any) -> None:
    """The function has its reasons to refuse, which it says."""
    with pytest.raises(NotImplemented):
        function(*args)


CALLS: dict[str, Callable[[Any], Any]] = {
    "config": lambda _id: runner.config(),
    "converge": lambda id_: [runner.converge(node=id_), runner.converge(hint=id_, started=id_, suspects=id_)],
    "drain": lambda id_: runner.drain(id_),
    "explain": lambda id_: [runner.explain(id_, "r1"), runner.explain("r1", id_)],
    "graph": lambda _id: [runner.graph(style=style) for style in ("mermaid", "dot", "table")],
    "paths": lambda _id: [runner.paths(), runner.paths(family=6)],
    "plan": lambda _id: runner.plan(),
    "ports": lambda _id: runner.ports(),
    "rebalance": lambda _id: runner.rebalance(),
    "release": lambda id_: refused(runner.release, id_),
    "rollback": lambda _id: runner.rollback(1),
    "rotate": lambda id_: runner.rotate(id_),
    "rotate_preshared": lambda _id: refused(runner.rotate_preshared, "wg0"),
    "status": lambda _id: runner.status(),
    "undrain": lambda id_: [runner.drain(id_), runner.undrain(id_)],
    "verify": lambda _id: runner.verify(),
    "whatif": lambda id_: runner.whatif(id_),
}
"""Function → its call with an id, or its call alone if it takes none. A known error is expected by name."""


def typed(text: str) -> Any:
    """The argument of a function, of which the operator types *text*."""
    return salt.utils.args.yamlify_arg(text)


@pytest.fixture
def fleet(monkeypatch, tmp_path):
    """A function that returns a master with two relays and a gateway of that id, on which ``salt-run`` is called."""

    def make(id_):
        master = FakeMaster()
        nodes = master.policy["wg0"]["nodes"] = {
            "r1": {"role": "relay", "endpoint": "203.0.113.1"},
            "r2": {"role": "relay", "endpoint": "203.0.113.2"},
            "*": {"routes": ["192.168.50.0/24"]},
        }
        master.mine = {node: mine(node) for node in (*list(nodes)[:2], id_)}
        opts = {**master.opts, "cachedir": str(tmp_path), "__cli": "salt-run", "conf_file": str(tmp_path / "master")}
        monkeypatch.setattr(runner, "__opts__", opts, raising=False)
        monkeypatch.setattr(Ledger, "of", lambda _opts: master.ledger)
        monkeypatch.setattr(Environment, "of", lambda _opts: master.env)
        monkeypatch.setattr(inventory, "read_inventory", lambda _opts: master.inventory())
        monkeypatch.setattr(inventory, "raw_policy", lambda _opts: master.policy)
        monkeypatch.setattr(inventory, "accepted_keys", lambda _opts: master.inventory().accepted)
        monkeypatch.setattr(inventory, "is_accepted", lambda _opts, node: node in master.mine)
        monkeypatch.setattr(jobs, "forwarded", lambda _opts, _node: 0)
        monkeypatch.setattr(status.link_survey, "query", lambda *_args: {})
        monkeypatch.setattr(drain, "DRAIN_TIMEOUT", 0)
        monkeypatch.setattr(drain, "DRAIN_POLL_INTERVAL", 0)
        monkeypatch.setattr(run_converge, "QUEUE_LOCK_TIMEOUT", 0)
        monkeypatch.setattr(merged_config, "merged_config", lambda _opts: "")
        runner.converge()
        return master

    return make


def test_each_function_has_a_call():
    """A new function of the runner joins the test."""
    own = {name for name, each in vars(runner).items() if inspect.isfunction(each) and not name.startswith("_")}
    assert own - {"annotations"} == CALLS.keys()


@pytest.mark.parametrize("id_", IDS)
def test_function_takes_id_as_typed(fleet, id_):
    """None ends in a traceback, or says of a member that it is none."""
    master = fleet(id_)
    assert id_ in master.members()
    for name, call in CALLS.items():
        try:
            call(typed(id_))
        except NotImplemented as error:
            pytest.fail(f"{name} of {id_!r}: {error}")
    runner.whatif(typed(f"{id_}--r1"))
    if "," not in id_:
        runner.whatif(typed(f"r1,{id_}"))
