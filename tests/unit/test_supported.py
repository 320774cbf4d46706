"""Minions that can't have a part in a mesh are offered no function, and told why."""

from __future__ import annotations

import importlib

import pytest
import salt.utils.platform

KINDS = ("modules", "states", "beacons", "engines")


def virtual(kind, monkeypatch, **opts):
    """Return what the loader is told by the module of *kind* on a minion with these options."""
    module = importlib.import_module(f"saltext_wgmesh.{kind}.wgmesh")
    monkeypatch.setattr(module, "__opts__", opts, raising=False)
    return module.__virtual__()


@pytest.mark.parametrize("kind", KINDS)
def test_linux_minion_is_supported(kind, monkeypatch):
    """An ordinary minion gets the functions."""
    assert virtual(kind, monkeypatch, id="web1") == "wgmesh"


@pytest.mark.parametrize("kind", KINDS)
def test_proxy_minion_gets_no_function(kind, monkeypatch):
    """A proxy minion has no part in a mesh, whether its options or its process show what it is."""
    is_supported, reason = virtual(kind, monkeypatch, id="switch1", proxy={"proxytype": "dummy"})
    assert is_supported is False
    assert "proxy minion" in reason
    monkeypatch.setattr(salt.utils.platform, "is_proxy", lambda: True)
    assert virtual(kind, monkeypatch, id="switch1")[0] is False


@pytest.mark.parametrize("kind", KINDS)
def test_other_system_gets_no_function(kind, monkeypatch):
    """The package drives the network of Linux alone."""
    monkeypatch.setattr(salt.utils.platform, "is_linux", lambda: False)
    is_supported, reason = virtual(kind, monkeypatch, id="win1")
    assert is_supported is False
    assert "Linux" in reason
