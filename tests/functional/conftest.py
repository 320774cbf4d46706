"""Salt's real loaders, on a new machine for each test."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import salt._logging
import salt.config
from saltfactories.utils.functional import Loaders

from saltext_wgmesh.core import constants
from saltext_wgmesh.core.model.view import View
from saltext_wgmesh.minion.system.host import Host
from tests.functional import namespace

NEEDS = ("ip", "wg", "wg-quick")
PEM = "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----\n"


def pytest_collection_modifyitems(items):
    """Namespaces and devices need root, and the tools that the package drives."""
    missing = [tool for tool in NEEDS if shutil.which(tool) is None]
    reason = "needs root for network namespaces" if os.geteuid() else f"needs {', '.join(missing)}" if missing else None
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.root)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def machine():
    """Run the test on a machine of its own."""
    with namespace.machine():
        yield


@pytest.fixture
def watchers(machine):
    """Return a function that lists the machine's watchers and supervisors: pid → command line. End them afterwards."""
    yield namespace.watchers
    namespace.end(namespace.watchers)


@pytest.fixture(scope="session")
def minion_opts(tmp_path_factory):
    """Return the options of a masterless minion node1 with a Salt key."""
    root = tmp_path_factory.mktemp("minion")
    opts = salt.config.minion_config(None, minion_id="node1")
    opts.update(
        root_dir=str(root),
        pki_dir=str(root / "pki"),
        cachedir=str(root / "cache"),
        sock_dir=str(root / "sock"),
        conf_file=str(root / "minion"),
        pillar_roots={"base": [str(root / "pillar")]},
        file_client="local",
        # These would start processes or look at the machine outside.
        enable_fqdns_grains=False,
        enable_gpu_grains=False,
        __role="minion",
    )
    (root / "pki").mkdir()
    (root / "pki" / "minion.pub").write_text(PEM)
    (root / "cache").mkdir()
    (root / "pillar").mkdir()
    return opts


@pytest.fixture(scope="session")
def all_loaders(minion_opts):
    """Return the loaders, made once, since a loader takes a second."""
    # Otherwise Salt keeps its log lines, and prints them all when this process ends.
    salt._logging.shutdown_temp_handler()
    return Loaders(minion_opts)


@pytest.fixture
def loaders(all_loaders, machine):
    """Return the loaders, on a machine of the test's own."""
    all_loaders.context.clear()
    return all_loaders


@pytest.fixture
def pillar(minion_opts):
    """Return a function that sets the pillar: from now on it has these keys and no others."""
    folder = Path(minion_opts["pillar_roots"]["base"][0])

    def put(keys):
        (folder / "top.sls").write_text("base: {'*': [keys]}\n")
        (folder / "keys.sls").write_text(json.dumps(keys))

    yield put
    for path in folder.iterdir():
        path.unlink()


@pytest.fixture
def offer(pillar):
    """Return a function that puts views, by mesh, into the pillar. A dict is put in unchanged."""

    def put(**offers):
        pillar({constants.PILLAR_VIEWS: {mesh: _entry(value) for mesh, value in offers.items()}})

    return put


def _entry(value):
    if isinstance(value, View):
        return {**value.as_dict(), "generation": 3, "digest": value.digest()}
    return value


@pytest.fixture
def modules(loaders):
    """Return the execution functions, as a minion finds them."""
    return loaders.modules


@pytest.fixture
def states(loaders):
    """Return the state functions, as a minion finds them."""
    return loaders.states


@pytest.fixture
def outside(machine):
    """Return a function that runs one command on the test's machine and returns its output."""

    def run(*argv):
        done = subprocess.run(argv, capture_output=True, text=True)
        # An error of subprocess would not say what the command printed.
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
        return done.stdout

    return run


def private_key_forms(path=None):
    """Return the private key in the forms in which it could leak: base64, hex, and as Python prints bytes."""
    text = (path or Host().key_file).read_text().strip()
    raw = base64.b64decode(text)
    return text, raw.hex(), repr(raw)[2:-1]
