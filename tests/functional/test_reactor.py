"""From an event to the gate, through Salt's own reactor: whatever the event holds, a run is asked for and no more."""

from __future__ import annotations

import fcntl
import json
from contextlib import contextmanager
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

from saltext_wgmesh.master import install

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

    gate: Path

    def __call__(self):
        return sorted(json.loads(p.read_text()) for p in self._left())

    @contextmanager
    def held(self):
        """As if a run were under way."""
        with open(self.gate / "converge.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def forget(self):
        for path in self._left():
            path.unlink()

    def _left(self):
        return list((self.gate / "words").iterdir())


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
    """What is left at the gate; nothing is afterwards."""
    folder = Path(opts["cachedir"]) / "wgmesh"
    (folder / "words").mkdir(parents=True, exist_ok=True)
    left = Words(folder)
    yield left
    left.forget()


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


def test_while_a_run_is_on_it_is_told_and_nothing_is_called(reactor, words):
    """Each event leaves what its call would have left; when nobody has the gate, there is a call again."""
    tag, down = "salt/beacon/web1/wgmesh/link-down", {"id": "web1", "neighbours": ["17", "unknown"]}
    with words.held():
        for each, given in ((tag, down), ("salt/minion/web1/start", {"id": "web1"}), ("salt/key", {})):
            assert reactor.reactions(each, given, reactor.list_reactors(each)) == []
        assert words() == [[], ["hints", "web1"], ["started", "web1"], ["suspects", "17"]]
    assert reaction(reactor, tag, down) == {"hint": "web1", "suspects": "17,unknown"}


def test_names_that_are_made_up_leave_nothing_on_disk(reactor, converge, words):
    """A thousand ids without an accepted key leave one word, the empty one; each node with a key has its own. So do the
    calls, and so does what is left instead of a call."""
    named = [[kind, node] for kind in ("drifted", "hints", "started", "suspects") for node in ("17", "web1")]
    tags = ("salt/beacon/web1/wgmesh/link-down", "salt/minion/web1/start", "salt/beacon/web1/wgmesh/drift")
    events = [(tag, {"id": v, "neighbours": [v]}) for v in [*HOSTILE, "waiting", "bad", "web1"] for tag in tags]
    calls = [reaction(reactor, tag, given) for tag, given in events]
    with words.held():
        for number in range(1000):
            converge(hint=f"made-up-{number}")
        for call in calls:
            converge(**call)
        assert words() == [[], *named]
    words.forget()
    with words.held():
        assert [reactor.reactions(tag, given, reactor.list_reactors(tag)) for tag, given in events] == [[]] * len(calls)
        assert words() == [[], *named]


def test_a_name_that_somebody_mistyped_is_an_error(converge, words):
    """Only events may name whom they like; an id of digits, which Salt's command line makes a number, is one."""
    with words.held():
        with pytest.raises(salt.exceptions.NotImplemented, match="web9 is no accepted minion id: 'salt-key"):
            converge(node="web9")
        assert words() == []
        converge(node=17)
        assert words() == [["again", "17"]]
