"""Functions of the runner write as the master's user, whichever user calls them."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from pathlib import Path

import pytest
from salt.exceptions import NotImplemented

from saltext_wgmesh import master_user, salt_errors
from saltext_wgmesh.core.errors import PolicyError, Problem, WgmeshError
from saltext_wgmesh.master.requests.run_queue import RunQueue

NOBODY = pwd.getpwnam("nobody")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")


@pytest.fixture
def folder():
    """A folder that every user can reach, and that every user may write."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o777)
    yield made
    shutil.rmtree(made)


def owners(folder):
    """The users that files and folders below *folder* belong to."""
    return {path.stat().st_uid for path in folder.rglob("*")}


def queue_a_run(opts):
    """As the functions of the runner do: a folder, a lock, a request."""
    RunQueue(Path(opts["cachedir"]) / "wgmesh", interactive=True).run(lambda requests: None)
    return os.geteuid()


def shell(opts, function, context=None):
    """*function* as a function of the runner, in a module to which Salt's loader gave *opts*."""
    names = {"__opts__": opts, "__context__": context if context is not None else {}, "function": function}
    exec("def shell(*args): return function(*args)", names)
    return salt_errors.for_runner(names["shell"])


@root_only
@pytest.mark.parametrize("by", ["option", "folder"])
def test_root_writes_as_the_masters_user(folder, by):
    """The option names the user, or the cache belongs to that user and an orchestration has overwritten the option."""
    opts = {"cachedir": str(folder), "user": "nobody" if by == "option" else "sudo_operator"}
    if by == "folder":
        os.chown(folder, NOBODY.pw_uid, NOBODY.pw_gid)
    assert shell(opts, queue_a_run)(opts) == NOBODY.pw_uid
    assert owners(folder) == {NOBODY.pw_uid}
    assert os.geteuid() == 0


@root_only
def test_third_user_changes_nothing(folder):
    """A process that is neither the master's user nor root can't become that user."""
    opts = {"cachedir": str(folder), "user": "daemon"}

    def refused():
        with pytest.raises(NotImplemented, match="belong to daemon"):
            shell(opts, queue_a_run)(opts)
        return True

    assert master_user.run_as_master_user({"user": "nobody"}, refused)
    assert list(folder.iterdir()) == []


def test_own_user_needs_no_other_process(tmp_path):
    """The master itself, and salt-run, which has become the master's user."""
    opts = {"cachedir": str(tmp_path), "user": pwd.getpwuid(os.geteuid()).pw_name}
    assert shell(opts, os.getpid)() == os.getpid()


@root_only
@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (WgmeshError("no mesh"), NotImplemented),
        (PolicyError([Problem(path="a", message="b", remedy="c")]), NotImplemented),
        (PermissionError(13, "denied", "/x"), NotImplemented),
        (ZeroDivisionError("a defect"), ZeroDivisionError),
    ],
)
def test_error_of_the_child_is_the_callers(folder, error, raised):
    """It is as if the function had run in the calling process."""

    def fail():
        raise error

    with pytest.raises(raised, match=str(error).replace("[", r"\[").replace("(", r"\(").replace(")", r"\)")):
        shell({"cachedir": str(folder), "user": "nobody"}, fail)()


@root_only
@pytest.mark.parametrize("user", ["nobody", "root"])
@pytest.mark.parametrize(
    ("result", "status"),
    [({"error": "no policy"}, {"retcode": 1}), ({"error": {}}, {}), ({"wg0": {}}, {}), ("busy", {})],
)
def test_result_with_error_fails_the_orchestration(folder, user, result, status):
    """Whichever process ran the function. A mesh may be named ``error``."""
    context = {}
    assert shell({"cachedir": str(folder), "user": user}, lambda: result, context)() == result
    assert context == status


@root_only
def test_death_of_the_child_is_an_error(folder):
    """No caller waits for an answer that never comes."""
    with pytest.raises(NotImplemented, match="ended with status"):
        shell({"cachedir": str(folder), "user": "nobody"}, lambda: os._exit(3))()
