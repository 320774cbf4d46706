"""The returns in Salt's job cache: what can't be read costs its own node, and ends no run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import salt.payload
import salt.utils.jid
from hypothesis import given
from hypothesis import strategies as st

from saltext_wgmesh.master.fleet import jobs
from saltext_wgmesh.master.fleet.job_cache import returns

JID = "20260101000000000000"


class DiskClient:
    """Salt's client of a master whose job cache is below *folder*."""

    def __init__(self, folder: Path, cache: str = "local_cache") -> None:
        self.opts = {"cachedir": str(folder), "hash_type": "sha256", "master_job_cache": cache}

    def path(self, node: str) -> Path:
        """The file of the return of *node*."""
        jobs = str(Path(self.opts["cachedir"], "jobs"))
        found = Path(salt.utils.jid.jid_dir(JID, jobs, self.opts["hash_type"]), node, "return.p")
        found.parent.mkdir(parents=True, exist_ok=True)
        return found

    def get_cache_returns(self, jid: str) -> dict[str, Any]:
        """The returns of another job cache; Salt's own is never read so, since its reader may not return."""
        assert self.opts["master_job_cache"] != "local_cache"
        return {"a": {"ret": jid}}

    def run_job(self, nodes: list[str], function: str, **_: Any) -> dict[str, Any]:
        """A job of which returns may be there."""
        return {"jid": JID if function != "saltutil.find_job" else "2"}


@pytest.fixture
def client(tmp_path: Path) -> DiskClient:
    """A client whose job has a return of *a*."""
    made = DiskClient(tmp_path)
    made.path("a").write_bytes(salt.payload.dumps({"return": {"wg0": 1}, "retcode": 0}))
    return made


@given(content=st.binary(max_size=40))
def test_damaged_return_costs_its_node(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Whatever the file holds, the returns of others are read."""
    client = DiskClient(tmp_path_factory.mktemp("cache"))
    client.path("a").write_bytes(salt.payload.dumps({"return": 1}))
    client.path("b").write_bytes(content)
    assert returns(client, JID, ["a", "b", "c"])["a"] == 1


def test_unreadable_return_is_none(client: DiskClient) -> None:
    """So is a folder in its place."""
    client.path("b").write_bytes(b"\x81")
    client.path("c").mkdir()
    assert returns(client, JID, ["a", "b", "c", "d"]) == {"a": {"wg0": 1}}


def test_push_ends_despite_damaged_return(client: DiskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node whose return can't be read is unanswered; its return may be readable later."""
    client.path("b").write_bytes(b"\x81")
    opts = {"timeout": 0.1, "gather_job_timeout": 0.1}
    monkeypatch.setattr("salt.client.get_local_client", lambda **_: _Opened(client))
    result = jobs.run_apply(opts, ["a", "b"])
    assert (result.returned, result.unanswered) == ({"a": {"wg0": 1}}, {"b": JID})
    client.path("b").write_bytes(salt.payload.dumps({"return": 2}))
    assert jobs.late_returns(opts, {"b": JID, "a": "another"}).returned == {"b": 2}


def test_return_of_earlier_salt_is_read(client: DiskClient) -> None:
    """It stands in the file alone."""
    client.path("b").write_bytes(salt.payload.dumps([1]))
    assert returns(client, JID, ["b"]) == {"b": [1]}


def test_other_job_cache_is_read_by_salt(tmp_path: Path) -> None:
    """Returners know their own stores."""
    assert returns(DiskClient(tmp_path, "mysql"), JID, ["a", "b"]) == {"a": JID}


class _Opened:
    """A client in a ``with`` statement."""

    def __init__(self, client: DiskClient) -> None:
        self._client = client

    def __enter__(self) -> DiskClient:
        return self._client

    def __exit__(self, *_: object) -> None:
        pass
