"""The wheel of an earlier commit of this repository, from which a fleet is upgraded."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from ...machine import REPOSITORY
from ..readme import bare

COMMIT = Path(__file__).with_name("from_commit").read_text().strip()


def obstacle() -> str | None:
    """Return why this clone can't show the commit, or None if it can."""
    git = shutil.which("git")
    if git is None:
        return "git is not installed: the wheel of the earlier commit can't be built"
    words = [git, "-C", str(REPOSITORY), "cat-file", "-e", f"{COMMIT}^{{commit}}"]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        return f"commit {COMMIT[:7]} is not in this clone (a shallow one?): run git fetch --unshallow"
    return None


def wheel(folder: Path, source: Path) -> Path:
    """Build the commit's wheel into *folder* and return its path; its files are unpacked into *source*.

    Its version gets the suffix ``.dev0``. Two commits between releases have the same version, and pip would not
    replace one by the other.
    """
    archive = source.with_suffix(".tar")
    words = ["git", "-C", str(REPOSITORY), "archive", f"--output={archive}", COMMIT]
    subprocess.run(words, check=True)
    shutil.unpack_archive(archive, source)
    setup = source / "setup.cfg"
    text, replaced = re.subn(r"(?m)^(version = .+)$", r"\1.dev0", setup.read_text())
    assert replaced == 1, f"no version in setup.cfg of commit {COMMIT}"
    setup.write_text(text)
    return bare.wheel(folder, source)
