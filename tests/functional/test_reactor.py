"""From an event to the gate, through Salt's own reactor: whatever the event holds, a run is asked for and no more."""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import salt._logging
import salt.config
import salt.exceptions
import salt.loader
import salt.utils.data
import salt.utils.reactor
import yaml

from saltext_wgmesh.master import gate, install

PARAMETERS = {
    "drift": ["drifted"],
    "facts": [],
    "handshake-stale": ["hint", "suspects"],
    "key": [],
    "link": ["hint", "suspects"],
    "new-minion": ["started"],
}
TAGS = {
    "wgmesh/web1/facts": "facts",
    "salt/beacon/web1/wgmesh/link-down": "link",
    "salt/beacon/web1/wgmesh/link-up": "link",
    "salt/beacon/web1/wgmesh/stale": "handshake-stale",
    "salt/beacon/web1/wgmesh/recovered": "handshake-stale",
    "salt/beacon/web1/wgmesh/drift": "drift",
    "salt/minion/web1/start": "new-minion",
    "salt/key": "key",
}
HOSTILE = [
    "web1\n    - args:\n      - again: web2",
    'x"\nother:\n  runner.state.orchestrate: []',
    "{{ 7 * 7 }}{% set x = 1 %}{# #}{% raw %}",
    "{% include '/etc/passwd' %}",
    "*anchor",
    "!!python/object/apply:os.system [true]",
    "'; - [a, {b: c}]",
    "../../../etc/passwd",
    "web1/../web2",
    "a" * 1_000_000,
    "\u0000\u0085\u2028\U0001f600",
    "",
    " web1 ",
    "yes",
    None,
    17,
    1e300,
    True,
    b"\xff\x00",
    ["web1"],
    {"web1": {"web2": ["{{ x }}"]}},
]


@dataclass
class Words:
    """What was left at the gate."""

    folder: Path

    def __call__(self):
        return sorted(json.loads(p.read_text()) for p in self.folder.iterdir())


@pytest.fixture(scope="module")
def opts(tmp_path_factory):
    """A master with the reactor of the snippet and the accepted key of web1."""
    root = tmp_path_factory.mktemp("master")
    opts = salt.config.master_config(None)
    opts.update(
        root_dir=str(root),
        pki_dir=str(root / "pki"),
        cachedir=str(root / "cache"),
        sock_dir=str(root / "sock"),
        conf_file=str(root / "master"),
        enable_fqdns_grains=False,
        enable_gpu_grains=False,
        reactor=yaml.safe_load(install.master_config())["reactor"],
        __role="master",
    )
    for state, node in (
        ("minions", "web1"),
        ("minions", "17"),
        ("minions_pre", "waiting"),
        ("minions_rejected", "bad"),
    ):
        (root / "pki" / state).mkdir(parents=True, exist_ok=True)
        (root / "pki" / state / node).write_text("a key\n")
    salt._logging.shutdown_temp_handler()
    return opts


@pytest.fixture(scope="module")
def reactor(opts):
    return salt.utils.reactor.Reactor(opts)


@pytest.fixture(scope="module")
def converge(opts):
    """The runner's function, by Salt's loader."""
    return salt.loader.runner(opts)["wgmesh.converge"]


@pytest.fixture
def words(opts):
    """Lists what is left at the gate, while another run holds it."""
    folder = Path(opts["cachedir"]) / "wgmesh"
    (folder / "words").mkdir(parents=True, exist_ok=True)
    with open(folder / "converge.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Words(folder / "words")
    for path in (folder / "words").iterdir():
        path.unlink()


def reaction(reactor, tag, data):
    """The arguments of the one runner call that follows."""
    (chunk,) = reactor.reactions(tag, data, reactor.list_reactors(tag))
    assert (chunk["state"], chunk["fun"]) == ("runner", "wgmesh.converge")
    return salt.utils.data.repack_dictlist(chunk.get("args", []))


def test_each_reactor_file_is_in_the_snippet_and_each_in_the_snippet_is_there():
    """No file is forgotten by the master's configuration, and none is named that is missing."""
    folder = install.data_folder() / "reactor"
    entries = yaml.safe_load(install.master_config())["reactor"]
    named = {path for entry in entries for paths in entry.values() for path in paths}
    assert named == {str(path) for path in folder.glob("*.sls")}
    assert {Path(path).stem for path in named} == PARAMETERS.keys()


@pytest.mark.parametrize(("tag", "name"), TAGS.items())
def test_each_event_has_one_reaction(reactor, tag, name):
    """It is a run of the converge, with the names of nodes as hints at most."""
    given = {"id": "web1", "neighbours": ["relay1", "relay2"], "_stamp": "now"}
    values = {"suspects": "relay1,relay2"}
    assert reaction(reactor, tag, given) == {key: values.get(key, "web1") for key in PARAMETERS[name]}


@pytest.mark.parametrize("act", ["accept", "reject", "delete", "accepted", "rejected"])
def test_a_key_event_asks_for_a_run_in_the_words_of_any_salt(reactor, act):
    """3007 says accept and reject, 3008 accepted and rejected."""
    assert reaction(reactor, "salt/key", {"id": "web1", "act": act, "result": True}) == {}


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("value", HOSTILE, ids=lambda v: repr(v)[:20])
def test_no_event_becomes_more_than_one_call_with_texts(reactor, tag, value):
    """Whatever stands in any field, nested or not: no other call, no other parameter, nothing but text."""
    nested = {"id": value, "act": value, "data": {"id": value}, "mesh": value, "neighbours": [value, value]}
    for data in ({"id": value}, nested, {"neighbours": value}, {"x": value}, {}):
        found = reaction(reactor, tag, data)
        assert list(found) == PARAMETERS[TAGS[tag]]
        assert {type(text) for text in found.values()} <= {str}


def test_what_is_asked_for_already_is_not_asked_for_again(reactor, converge, words):
    """Until a run takes the word, or should have taken it long ago; another node's is another word."""
    tag, down = "salt/beacon/web1/wgmesh/link-down", {"id": "web1", "neighbours": ["17", "unknown"]}
    converge(**reaction(reactor, tag, down))
    assert reactor.reactions(tag, down, reactor.list_reactors(tag)) == []
    assert reaction(reactor, tag, {"id": "17", "neighbours": []})
    assert reaction(reactor, "salt/minion/web1/start", {"id": "web1"})
    assert reaction(reactor, "salt/key", {}) == {}
    for word in words.folder.iterdir():
        os.utime(word, times=(0, time.time() - gate.FRESH - 1))
    assert reaction(reactor, tag, down)


def test_names_that_are_made_up_leave_nothing_on_disk(reactor, converge, words, monkeypatch):
    """A thousand ids without an accepted key leave one word, the empty one; each node with a key has its own."""
    monkeypatch.setattr(gate, "FRESH", 0)
    for number in range(1000):
        converge(hint=f"made-up-{number}")
    for value in [*HOSTILE, "waiting", "bad", "web1"]:
        for tag in ("salt/beacon/web1/wgmesh/link-down", "salt/minion/web1/start", "salt/beacon/web1/wgmesh/drift"):
            converge(**reaction(reactor, tag, {"id": value, "neighbours": [value]}))
    named = [[kind, node] for kind in ("drifted", "hints", "started", "suspects") for node in ("17", "web1")]
    assert words() == [[], *named]


def test_a_name_that_somebody_mistyped_is_an_error(converge, words):
    """Only events may name whom they like; an id of digits, which Salt's command line makes a number, is one."""
    with pytest.raises(salt.exceptions.NotImplemented, match="web9 is no accepted minion id: 'salt-key"):
        converge(node="web9")
    assert words() == []
    converge(node=17)
    assert words() == [["again", "17"]]
