"""Functions of the master run as the master's user, whichever user calls them.

The ledger, the run queue and the secrets belong to the user that the master runs as. A process of root that wrote them,
such as ``saltutil.runner`` in the master's own minion, would leave files that the master can't read.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import pwd
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from saltext_wgmesh.core.errors import WgmeshError


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user by numbers, with the environment of a login."""

    uid: int
    gid: int
    name: str
    home: str = "/"

    @classmethod
    def of(cls, entry: pwd.struct_passwd) -> User:
        """The user of that entry of the password database."""
        return cls(uid=entry.pw_uid, gid=entry.pw_gid, name=entry.pw_name, home=entry.pw_dir)

    @classmethod
    def of_id(cls, uid: int, gid: int) -> User:
        """The user of that number, which the password database need not have."""
        try:
            return cls.of(pwd.getpwuid(uid))
        except KeyError:
            return cls(uid=uid, gid=gid, name=str(uid))


SUPERUSER = User(uid=0, gid=0, name="root", home="/root")


def master_user(opts: Mapping[str, Any]) -> User:
    """Return the user that the master runs as.

    The owner of the master's ``cachedir`` says it, since an orchestration writes the name of its caller into ``user``.
    If that is root, the option ``user`` counts, where it names a user of this machine.
    """
    with contextlib.suppress(OSError, KeyError):
        folder = os.stat(opts["cachedir"])
        if folder.st_uid:
            return User.of_id(folder.st_uid, folder.st_gid)
    with contextlib.suppress(KeyError):
        return User.of(pwd.getpwnam(opts["user"]))
    return SUPERUSER


def run_as_master_user(opts: Mapping[str, Any], call: Callable[[], Any]) -> Any:
    """Return what *call* returns, as the master's user; its exceptions pass.

    A process of root does it in a child process. WgmeshError if this process is of a third user, which may not change
    to the master's: nothing is written.
    """
    user = master_user(opts)
    if os.geteuid() == user.uid:
        return call()
    if os.geteuid():
        raise WgmeshError(
            f"this master's files belong to {user.name}, and this process to the user {os.geteuid()}: "
            f"nothing was changed; call this function as {user.name} or as root"
        )
    return _in_child(user, call)


def _in_child(user: User, call: Callable[[], Any]) -> Any:
    """Return what *call* returns in a child process of *user*."""
    reader, writer = os.pipe()
    # multiprocessing refuses a child to a daemonic process, and Salt runs functions in such processes.
    child = os.fork()
    if not child:
        os.close(reader)
        _answer(writer, user, call)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = stream.read()
    _, status = os.waitpid(child, 0)
    if not answer:
        raise WgmeshError(f"the process that ran this function as {user.name} ended with status {status}: try again")
    succeeded, value = pickle.loads(answer)
    if succeeded:
        return value
    raise value


def _answer(writer: int, user: User, call: Callable[[], Any]) -> None:
    """Write the outcome of *call* as *user* to *writer*, and end this process."""
    try:
        _become(user)
        outcome = _pickled(True, call())
    except BaseException as error:
        outcome = _pickled(False, error)
    try:
        with os.fdopen(writer, "wb") as stream:
            stream.write(outcome)
    finally:
        # No exit handler of the parent's runs here: its connections and threads belong to the parent.
        os._exit(0)


def _pickled(succeeded: bool, value: Any) -> bytes:
    try:
        packed = pickle.dumps((succeeded, value))
        # Some exceptions can be packed and not unpacked.
        pickle.loads(packed)
        return packed
    except Exception:
        told = "".join(traceback.format_exception(value)) if isinstance(value, BaseException) else repr(value)
        return pickle.dumps((False, RuntimeError(told)))


def _become(user: User) -> None:
    """This process belongs to *user* for good, with all groups of that user."""
    try:
        os.initgroups(user.name, user.gid)
    except (KeyError, OSError):
        os.setgroups([user.gid])
    os.setgid(user.gid)
    os.setuid(user.uid)
    os.environ.update(HOME=user.home, USER=user.name, LOGNAME=user.name)
