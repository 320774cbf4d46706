"""The master configuration for this installation, together with what the master's files have under the same keys.

Salt merges the files in ``master.d`` with each other. A key of theirs then replaces the same key of the main file, and
a file that the main file includes replaces both. A printed file that did not know of these would remove settings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import salt.config
import salt.utils.yaml

from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.master.operator import install

CONFIG_HEADER = "# saltext-wgmesh on the master."
"""The first words of a file that this module wrote."""
_SECRET = re.compile(r"pass|secret|token|priv|credential|api_?key|://[^/\s]+:[^/\s]+@", re.IGNORECASE)


def merged_config(opts: Mapping[str, Any]) -> str:
    """Return the text for ``/etc/salt/master.d/wgmesh.conf``: with it, no setting of the master's files is lost.

    LedgerError with key and file if that is not possible. The error is a comment of YAML: Salt still reads the file if
    the operator has sent it there.
    """
    template = install.master_config()
    try:
        files = _Files(Path(opts["conf_file"]))
        merged = {key: files.merged(key, value) for key, value in salt.utils.yaml.safe_load(template).items()}
    except (OSError, salt.utils.yaml.YAMLError) as error:
        raise _refused(f"the master's configuration can't be read: {error}", "correct that") from error
    blocks = re.split(r"\n\n", template.strip())
    return "\n\n".join(_block(block, merged) for block in blocks) + "\n"


def _block(block: str, merged: Mapping[str, tuple[Any, str]]) -> str:
    """The part of the template with one key, with the merged value in its place if there is one."""
    found = re.search(r"^(\w+):", block, re.MULTILINE)
    if not found or not merged[found[1]][1]:
        return block
    value, source = merged[found[1]]
    comment = f"{block[: found.start()]}# With what {source} has: from now on this key counts here and not there.\n"
    return comment + str(salt.utils.yaml.safe_dump({found[1]: value}, default_flow_style=False)).rstrip()


class _Files:
    """The files of the master's configuration."""

    def __init__(self, main: Path) -> None:
        self._path = main
        self._main = _read(main)
        patterns = self._main.get("default_include", salt.config.DEFAULT_MASTER_OPTS["default_include"])
        self._drop_ins = dict(self._included(patterns))
        self._late = dict(self._included(self._main.get("include") or []))

    def _included(self, patterns: str | list[str]) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Each file that *patterns* include → its content, with that of the files which it includes itself."""
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            folder = self._path.parent
            whole = Path(pattern).expanduser()
            found = whole.parent.glob(whole.name) if whole.is_absolute() else folder.glob(pattern)
            for path in sorted(found):
                nested = _read(path).get("include")
                yield path, {**_read(path), **salt.config.include_config(nested, str(path), verbose=False)}

    def merged(self, key: str, ours: Any) -> tuple[Any, str]:
        """The value to print for *key*, and the file that it was merged with; empty if it is *ours* alone.

        LedgerError if a file that counts more than the printed one sets *key* without *ours*.
        """
        for path, content in self._late.items():
            if key in content and self._merge(path, key, content[key], _without_default(key, ours)) != content[key]:
                raise _refused(f"{key} is set in {path}, which counts more than the files in master.d", _moved(path))
        own = {path: content for path, content in self._drop_ins.items() if _is_ours(path)}
        others = [path for path, content in self._drop_ins.items() if path not in own and content.get(key) is not None]
        template = ours
        for path in others:
            self._merge(path, key, self._drop_ins[path][key], ours)
            ours = _overlaid(ours, self._drop_ins[path][key])
        value, sources = None, []
        # Salt merges files in master.d with the printed one, and they have replaced the main file's key already.
        for path, content in [*([] if others else [(self._path, self._main)]), *own.items()]:
            if content.get(key) is not None:
                value = content[key] if value is None else self._merge(path, key, value, content[key])
                sources.append(path)
        if not sources:
            return ours, str(others[-1]) if ours != template else ""
        if _SECRET.search(repr(value)):
            raise _refused(f"{key} in {sources[0]} seems to hold a secret, which is not printed", _moved(sources[0]))
        return self._merge(sources[0], key, value, _without_default(key, ours)), str(sources[0])

    @staticmethod
    def _merge(path: Path, key: str, value: Any, added: Any) -> Any:
        try:
            return _union(value, added)
        except TypeError:
            wanted = type(added).__name__
            raise _refused(
                f"{key} in {path} has parts of another kind than Salt's ({wanted})", f"correct {path}"
            ) from None


def _union(value: Any, added: Any) -> Any:
    """*value* with all of *added* that it lacks. No part of *value* changes; TypeError if they differ in kind."""
    if isinstance(value, dict) and isinstance(added, dict):
        new = {key: each for key, each in added.items() if key not in value}
        return {key: _union(each, added[key]) if key in added else each for key, each in value.items()} | new
    if isinstance(value, list) and isinstance(added, list):
        return [*value, *(each for each in added if each not in value)]
    if value is None:
        return added
    if isinstance(value, (dict, list)) or isinstance(added, (dict, list)):
        raise TypeError
    return value


def _overlaid(ours: Any, theirs: Any) -> Any:
    """*ours* with the single values that *theirs* has in the same places: of two files, the later one would win."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return {key: _overlaid(each, theirs[key]) if key in theirs else each for key, each in ours.items()}
    return ours if isinstance(ours, (dict, list)) or theirs is None else theirs


def _without_default(key: str, ours: Any) -> Any:
    """The value of the template without Salt's default folder, which the master's files have replaced."""
    if key != "file_roots":
        return ours
    return {env: [folder for folder in folders if folder != "/srv/salt"] for env, folders in ours.items()}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content = salt.utils.yaml.safe_load(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def _is_ours(path: Path) -> bool:
    return path.read_text(encoding="utf-8").startswith(CONFIG_HEADER)


def _moved(path: Path) -> str:
    return f"move the key from {path} into a file of its own in master.d, with which Salt merges the printed one"


def _refused(problem: str, remedy: str) -> LedgerError:
    return LedgerError(f"# Nothing is printed: {problem}.\n# Remedy: {remedy}, and call wgmesh.config again.")
