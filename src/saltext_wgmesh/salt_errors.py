"""The package's errors as Salt expects them, one decorator for each kind of shell.

Shells import this module, not its functions: Salt's loader would offer an imported function as one of theirs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import salt.exceptions

from saltext_wgmesh import master_user
from saltext_wgmesh.core.errors import WgmeshError

Shell = Callable[..., Any]


def salt_errors(translate: Callable[..., Any], *errors: type[Exception]) -> Callable[[Shell], Shell]:
    """A decorator that gives *errors* of a function to *translate*, together with the function's arguments.

    *translate* raises another error, or returns what the function returns instead. The function keeps its signature,
    from which Salt matches arguments.
    """

    def decorate(function: Shell) -> Shell:
        @functools.wraps(function)
        def shell(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except errors as error:
                return translate(error, *args, **kwargs)

        return shell

    return decorate


def _raise_for_runner(error: Exception, *_: Any, **__: Any) -> None:
    raise salt.exceptions.NotImplemented(str(error)) from error


def _raise_for_module(error: Exception, *_: Any, **__: Any) -> None:
    raise salt.exceptions.CommandExecutionError(str(error)) from error


def _failed_state(error: Exception, name: str, *_: Any, **__: Any) -> dict[str, Any]:
    return {"name": name, "result": False, "changes": {}, "comment": str(error)}


def for_runner(function: Shell) -> Shell:
    """A decorator for a function of the runner: it runs as the master's user, and expected errors are Salt's.

    ``salt-run`` prints this one exception without a traceback, and exits with status 1. Records that can't be read are
    expected, since another process may have written them. Other errors of the operating system keep their traceback.

    A result with an ``error`` has the orchestration that called the function fail.
    """
    as_salt = salt_errors(_raise_for_runner, WgmeshError, PermissionError, salt.exceptions.SaltCacheError)
    translated = as_salt(function)

    def call(*args: Any, **kwargs: Any) -> Any:
        # Salt's loader puts the master's options into the module of the function.
        module: dict[str, Any] = function.__globals__  # type: ignore[attr-defined]
        done = master_user.run_as_master_user(
            module.get("__opts__", {}), functools.partial(translated, *args, **kwargs)
        )
        if isinstance(done, dict) and isinstance(done.get("error"), str):
            # An orchestration takes the success from here. The function may have run in a child process.
            module.get("__context__", {})["retcode"] = 1
        return done

    return functools.wraps(function)(as_salt(call))


for_module = salt_errors(_raise_for_module, WgmeshError, OSError)
for_state = salt_errors(_failed_state, WgmeshError, OSError, salt.exceptions.CommandExecutionError)
