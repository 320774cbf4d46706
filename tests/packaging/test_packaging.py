"""The wheel in a clean environment: every loader finds its module, and formula, reactor and examples are installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from saltext_wgmesh.version import __version__

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
    "beacons": "wgmesh.beacon" in salt.loader.beacons(opts, mods),
    "engines": "wgmesh.start" in salt.loader.engines(opts, mods, {}, {}),
}
print(json.dumps(found))
"""


def run(*command: str | Path, cwd: Path = REPOSITORY) -> str:
    """Run *command* and return its output. The test fails with the output if the exit status is not 0."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Build the sdist, and the wheel from it: a file that the sdist lacks is in neither. Return the folder."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder)
    return folder


@pytest.fixture(scope="module")
def environment(built, tmp_path_factory) -> Path:
    """Return a new venv with the wheel, and Salt in the version of this test run."""
    import salt.version

    folder = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", folder)
    constraints = REPOSITORY / "constraints" / f"salt-{salt.version.__version__.split('.')[0]}.txt"
    run(folder / "bin/pip", "install", "-q", "-c", constraints, next(built.glob("*.whl")), cwd=folder)
    return folder


def test_every_loader_finds_its_module(environment):
    """Salt finds each loader folder of the package by its entry point."""
    found = json.loads(run(environment / "bin/python", "-c", LOADERS, cwd=environment))
    folders = {path.parent.name for path in (REPOSITORY / "src" / "saltext_wgmesh").glob("*/wgmesh.py")}
    assert found == dict.fromkeys(sorted(folders), True)


def test_wheel_metadata_has_version_and_license(built):
    """The metadata has the version of the source, and the text of the license is in the wheel."""
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        info = f"saltext_wgmesh-{__version__}.dist-info"
        license_file = next(name for name in wheel.namelist() if name.startswith(info) and name.endswith("/LICENSE"))
        assert wheel.read(license_file) == (REPOSITORY / "LICENSE").read_bytes()
        metadata = wheel.read(f"{info}/METADATA").decode().splitlines()
    assert f"Version: {__version__}" in metadata
    assert "License-File: LICENSE" in metadata


def test_wheel_carries_formula_reactor_and_examples(environment):
    """The data files are below the environment's share/, and the printed master configuration points at them."""
    program = "from saltext_wgmesh.master.operator import install; print(install.master_config())"
    config = run(environment / "bin/python", "-c", program, cwd=environment)
    share = environment / "share" / "saltext-wgmesh"
    assert f"- {share}/states" in config
    for folder in ("states/wgmesh", "reactor", "pillar-examples"):
        carried = {p.name for p in (share / folder).iterdir()}
        assert carried == {p.name for p in (REPOSITORY / folder).iterdir() if p.suffix in (".sls", ".conf")}
