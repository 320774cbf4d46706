"""From an event to the run queue, through Salt's own reactor: an event with any content only requests a run."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import salt._logging
import salt.config
import salt.loader
import salt.utils.data
import salt.utils.reactor
import yaml

from saltext_wgmesh.master.operator import install
from saltext_wgmesh.master.requests import reactions
from saltext_wgmesh.master.requests.request import Request, RequestKind
from saltext_wgmesh.master.requests.run_queue import RunQueue

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
class Queued:
    """The requests in the run queue of *folder*."""

    folder: Path

    def __call__(self):
        texts = (path.read_text() for path in self.files())
        return {Request.decode(text) for text in texts}

    @contextmanager
    def run_in_progress(self):
        """Hold the run lock, as a run in progress does."""
        with RunQueue(self.folder).exclusive():
            yield

    def clear(self):
        for path in self.files():
            path.unlink()

    def files(self):
        return list((self.folder / "requests").iterdir())


@pytest.fixture(scope="module")
def opts(tmp_path_factory):
    """Return the options of a master with the reactor of the snippet and the accepted key of web1."""
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
    """Return the runner's function from Salt's loader."""
    return salt.loader.runner(opts)["wgmesh.converge"]


@pytest.fixture
def queued(opts):
    """Yield the requests in the queue, and empty the queue afterwards."""
    folder = reactions.queue_dir(opts)
    (folder / "requests").mkdir(parents=True, exist_ok=True)
    found = Queued(folder)
    yield found
    found.clear()


def reaction(reactor, tag, data):
    """Return the arguments of the one runner call that follows from the event."""
    (chunk,) = reactor.reactions(tag, data, reactor.list_reactors(tag))
    assert (chunk["state"], chunk["fun"]) == ("runner", "wgmesh.converge")
    return salt.utils.data.repack_dictlist(chunk.get("args", []))


def requests(**values):
    """Return requests by kind and value, and one for a run."""
    return {Request(), *(Request(kind=RequestKind[kind.upper()], value=v) for kind, vs in values.items() for v in vs)}


def test_reactor_files_match_the_configuration():
    """The master's configuration names exactly the reactor files of the package."""
    folder = install.data_folder() / "reactor"
    entries = yaml.safe_load(install.master_config())["reactor"]
    named = {path for entry in entries for paths in entry.values() for path in paths}
    assert named == {str(path) for path in folder.glob("*.sls")}
    assert {Path(path).stem for path in named} == PARAMETERS.keys()


@pytest.mark.parametrize(("tag", "name"), TAGS.items())
def test_event_has_one_reaction(reactor, tag, name):
    """The reaction is one converge call, with node names as its only arguments."""
    given = {"id": "web1", "neighbours": ["relay1", "relay2"], "_stamp": "now"}
    values = {"suspects": "relay1,relay2"}
    assert reaction(reactor, tag, given) == {key: values.get(key, "web1") for key in PARAMETERS[name]}


@pytest.mark.parametrize("act", ["accept", "reject", "delete", "accepted", "rejected"])
def test_key_event_of_any_salt_starts_a_run(reactor, act):
    """Each spelling of a key event starts a run: Salt 3007 writes accept and reject, 3008 accepted and rejected."""
    assert reaction(reactor, "salt/key", {"id": "web1", "act": act, "result": True}) == {}


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("value", HOSTILE, ids=lambda v: repr(v)[:20])
def test_hostile_event_becomes_one_call_with_texts(reactor, tag, value):
    """Hostile content in any field, nested or not, causes no other call and no other parameter. Arguments are texts."""
    nested = {"id": value, "act": value, "data": {"id": value}, "mesh": value, "neighbours": [value, value]}
    for data in ({"id": value}, nested, {"neighbours": value}, {"x": value}, {}):
        found = reaction(reactor, tag, data)
        assert list(found) == PARAMETERS[TAGS[tag]]
        assert {type(text) for text in found.values()} <= {str}


def test_event_during_a_run_is_queued(reactor, queued):
    """During a run each event queues the request of its call, and calls nothing. After the run it is a call again."""
    tag, down = "salt/beacon/web1/wgmesh/link-down", {"id": "web1", "neighbours": ["17", "unknown"]}
    with queued.run_in_progress():
        for each, given in ((tag, down), ("salt/minion/web1/start", {"id": "web1"}), ("salt/key", {})):
            assert reactor.reactions(each, given, reactor.list_reactors(each)) == []
        assert queued() == requests(hint=["web1"], started=["web1"], suspect=["17"])
    assert reaction(reactor, tag, down) == {"hint": "web1", "suspects": "17,unknown"}


def test_forged_names_leave_nothing_on_disk(reactor, converge, queued):
    """A thousand ids without an accepted key leave one request, for a run. Each node with a key has its own request.

    This holds for calls, and for requests that are queued in place of a call.
    """
    known = requests(**dict.fromkeys(("drifted", "hint", "started", "suspect"), ("17", "web1")))
    tags = ("salt/beacon/web1/wgmesh/link-down", "salt/minion/web1/start", "salt/beacon/web1/wgmesh/drift")
    events = [(tag, {"id": v, "neighbours": [v]}) for v in [*HOSTILE, "waiting", "bad", "web1"] for tag in tags]
    calls = [reaction(reactor, tag, given) for tag, given in events]
    with queued.run_in_progress():
        for number in range(1000):
            converge(hint=f"made-up-{number}")
        for call in calls:
            converge(**call)
        assert queued() == known
        assert len(queued.files()) == len(known)
    queued.clear()
    with queued.run_in_progress():
        assert [reactor.reactions(tag, given, reactor.list_reactors(tag)) for tag, given in events] == [[]] * len(calls)
        assert queued() == known
        assert len(queued.files()) == len(known)


def test_mistyped_name_is_an_error(converge, queued):
    """A converge call with an unknown node is an error, since only events may name any node.

    An id of digits, which Salt's command line reads as a number, is accepted.
    """
    with queued.run_in_progress():
        assert converge(node="web9")["error"].startswith("web9 is no accepted minion id: 'salt-key")
        assert queued() == set()
        converge(node=17)
        assert queued() == requests(retry=["17"]) - {Request()}
