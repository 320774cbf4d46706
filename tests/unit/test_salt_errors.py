"""Errors of the library as Salt expects them."""

import inspect

import pytest
from salt.exceptions import CommandExecutionError, NotImplemented

from saltext_wgmesh import salt_errors
from saltext_wgmesh.core.errors import WgmeshError

DECORATORS = (salt_errors.for_runner, salt_errors.for_module, salt_errors.for_state)


def failing(error):
    """A shell that fails with *error*."""

    def shell(name, key=False):
        raise error

    return shell


def test_runner_error_has_no_traceback_in_salt_run():
    """salt-run prints only this exception without a traceback."""
    with pytest.raises(NotImplemented, match=r"^no mesh$"):
        salt_errors.for_runner(failing(WgmeshError("no mesh")))("a")


def test_runner_passes_other_errors():
    """A full disk on the master is no expected outcome: its traceback is kept."""
    with pytest.raises(OSError, match="disk"):
        salt_errors.for_runner(failing(OSError("disk full")))("a")


@pytest.mark.parametrize("error", [WgmeshError("no key"), OSError("no key")])
def test_module_error_is_an_execution_error(error):
    """The message stays the same."""
    with pytest.raises(CommandExecutionError, match=r"^no key$"):
        salt_errors.for_module(failing(error))("a")


@pytest.mark.parametrize("error", [WgmeshError("no key"), OSError("no key"), CommandExecutionError("no key")])
@pytest.mark.parametrize(("args", "kwargs"), [(("a", True), {}), ((), {"name": "a", "key": True})])
def test_state_error_is_a_failed_state(error, args, kwargs):
    """Salt passes the name by position or by keyword."""
    assert salt_errors.for_state(failing(error))(*args, **kwargs) == {
        "name": "a",
        "result": False,
        "changes": {},
        "comment": "no key",
    }


@pytest.mark.parametrize("decorate", DECORATORS, ids=["runner", "module", "state"])
def test_decorated_function_keeps_signature_and_result(decorate):
    """Salt reads parameters from the signature, and sys.doc the docstring."""

    def shell(name, key=False):
        """Return both."""
        return name, key

    decorated = decorate(shell)
    assert list(inspect.signature(decorated).parameters) == ["name", "key"]
    assert decorated.__doc__ == "Return both."
    assert decorated("a", key=True) == ("a", True)


@pytest.mark.parametrize("decorate", DECORATORS, ids=["runner", "module", "state"])
def test_defects_are_never_translated(decorate):
    """They need their traceback."""
    with pytest.raises(ZeroDivisionError):
        decorate(failing(ZeroDivisionError()))("a")
