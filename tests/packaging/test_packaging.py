"""The wheel, in a clean environment: every loader finds its module, and states, reactor and examples are there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
LOADERS = """
import json, salt.config, salt.loader
opts = salt.config.minion_config(None)
master = salt.config.master_config(None)
mods = salt.loader.minion_mods(opts)
found = {
    "modules": "wgmesh.facts" in mods,
    "states": "wgmesh.joined" in salt.loader.states(opts, mods, {}, None),
    "runners": "wgmesh.converge" in salt.loader.runner(master),
    "pillar": "wgmesh" in salt.loader.pillars(master, mods),
}
print(json.dumps(found))
"""


def run(*command: str | Path, cwd: Path = REPOSITORY) -> str:
    """What *command* printed; the test fails with all of it if its status is not 0."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The sdist, and the wheel made from it: what the sdist lacks, the wheel lacks too."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder)
    return folder


@pytest.fixture(scope="module")
def environment(built, tmp_path_factory) -> Path:
    """A new venv with the wheel, and Salt of the version that this run tests."""
    import salt.version

    folder = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", folder)
    constraints = REPOSITORY / "constraints" / f"salt-{salt.version.__version__.split('.')[0]}.txt"
    run(folder / "bin/pip", "install", "-q", "-c", constraints, next(built.glob("*.whl")), cwd=folder)
    return folder


def test_every_loader_finds_its_module(environment):
    """The entry point leads Salt to each of the package's loader folders."""
    found = json.loads(run(environment / "bin/python", "-c", LOADERS, cwd=environment))
    assert found == {"modules": True, "states": True, "runners": True, "pillar": True}


def test_the_wheel_carries_formula_reactor_and_examples(environment):
    """They lie below the environment's share/, and the printed master configuration points at them."""
    program = "from saltext_wgmesh.master import install; print(install.master_config())"
    config = run(environment / "bin/python", "-c", program, cwd=environment)
    share = environment / "share" / "saltext-wgmesh"
    assert f"- {share}/states" in config
    for folder in ("states/wgmesh", "reactor", "pillar-examples"):
        carried = {p.name for p in (share / folder).iterdir()}
        assert carried == {p.name for p in (REPOSITORY / folder).iterdir() if p.suffix in (".sls", ".conf")}
