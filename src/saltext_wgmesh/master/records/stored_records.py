"""The records of the ledger as they are stored: whole, or named as damaged."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import salt.cache
import salt.exceptions

from saltext_wgmesh.core.errors import LedgerError
from saltext_wgmesh.core.model.untrusted import printable
from saltext_wgmesh.master.records import banks
from saltext_wgmesh.master.records.migration import migrate
from saltext_wgmesh.master.records.well_typed import well_typed

SCHEMA = 2
MAX_REASON = 200
"""Characters of an error of reading that a message repeats."""
_CACHE_ERRORS = (salt.exceptions.SaltCacheError, TypeError, ValueError)
"""Records that can't be read or written."""
_DAMAGE = (
    salt.exceptions.SaltCacheError,
    salt.exceptions.SaltDeserializationError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
    RecursionError,
)
"""Errors of reading a file that holds no record, or a record that lacks something."""
_DURABLE = (banks.HEADS, banks.HEAD_COPIES, banks.CURRENT, banks.GENERATIONS)

T = TypeVar("T")


class DamagedRecord(LedgerError):
    """A file of the ledger holds no such record: restore it from a backup, or delete what the message says."""


class StoredRecords:
    """The records of all banks, as plain values. Those that a mesh can't do without are on the disk when stored."""

    def __init__(self, cache: salt.cache.Cache, folder: Path | None = None) -> None:
        self._cache = cache
        self._folder = folder
        """The folder of the banks; None: they are no files."""

    def _flush(self, bank: str, key: str) -> None:
        with _accessing(bank, key):
            self._cache.flush(bank, key)

    def _list(self, bank: str) -> list[str]:
        """The keys of *bank*. Other files of its folder are none, such as what a killed write of Salt left."""
        with _accessing(bank):
            found = sorted(self._cache.list(bank) or [])
            return [key for key in found if self._folder is None or self._exists(bank, key)]

    def _fetch(self, bank: str, key: str) -> dict[str, Any]:
        raw = self._read(bank, key)
        if not raw or raw.get("schema") == SCHEMA:
            return raw
        migrated = parsed(bank, key, lambda: migrate(bank, raw))
        if migrated is None:
            schema = printable(repr(raw.get("schema")), MAX_REASON)
            if bank in banks.REPLACEABLE:
                raise _damaged(bank, key, f"it is of schema {schema}")
            raise LedgerError(
                f"the ledger's {bank} {key} is of schema {schema}, this version writes {SCHEMA}: "
                "upgrade the master, or remove the bank to plan afresh (addresses are then assigned again)"
            )
        return migrated

    def _read(self, bank: str, key: str) -> dict[str, Any]:
        """The record as it is stored; empty if there is none. DamagedRecord if the file holds anything else."""
        with _accessing(bank, key):
            try:
                raw = self._cache.fetch(bank, key)
            except _DAMAGE as error:
                raise _damaged(bank, key, error) from error
            # Salt reads an empty file as nothing, as it does a file that is missing.
            if not raw and self._exists(bank, key):
                raise _damaged(bank, key, "it is empty")
        if raw and not (isinstance(raw, dict) and all(isinstance(name, str) for name in raw)):
            raise _damaged(bank, key, "it is no mapping")
        return dict(raw or {})

    def _exists(self, bank: str, key: str) -> bool:
        return bool(self._cache.contains(bank, key))

    def _store(self, bank: str, key: str, value: dict[str, Any]) -> None:
        with _accessing(bank, key):
            self._cache.store(bank, key, {**value, "schema": SCHEMA})
            if self._folder and bank in _DURABLE:
                # Salt renames a file that is perhaps not on the disk yet. A power failure would leave it empty.
                _sync(self._folder / bank / f"{key}.p")


def _sync(path: Path) -> None:
    """The content and the name of the file *path* are on the disk."""
    for each in (path, path.parent):
        descriptor = os.open(each, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def parsed(bank: str, key: str, parse: Callable[[], T]) -> T:
    """Return what *parse* makes of the record; DamagedRecord if the record lacks something, or has another type."""
    try:
        return well_typed(parse())
    except _DAMAGE as error:
        raise _damaged(bank, key, error) from error


def _damaged(bank: str, key: str, why: object) -> DamagedRecord:
    reason = f"{type(why).__name__}: {why}" if isinstance(why, Exception) else str(why)
    return DamagedRecord(
        f"the ledger's {bank} {key} can't be used: the file {bank}/{key}.p below the master's cachedir is damaged "
        f"({printable(reason, MAX_REASON)}): restore it from a backup"
    )


@contextlib.contextmanager
def _accessing(bank: str, key: str = "") -> Iterator[None]:
    """Within the block, errors of Salt's cache become a LedgerError that names the record and the remedy."""
    try:
        yield
    except (*_CACHE_ERRORS, OSError) as error:
        raise LedgerError(
            f"the ledger's {' '.join(filter(None, (bank, key)))} can't be used: {error}; all files below the master's "
            "cachedir must be sound, and belong to the user that the master runs as: correct that with 'chown -R'"
        ) from error


def require_readable(folder: Path) -> None:
    """Return if this process may read *folder* or there is none; LedgerError if it may not."""
    if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
        raise LedgerError(
            f"the folder {folder} of the ledger can't be read by the user {os.geteuid()}: it must belong to the user "
            "that the master runs as: correct that with 'chown -R'"
        )
