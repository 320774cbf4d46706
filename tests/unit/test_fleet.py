"""Pushing: who answered, and who did not."""

import contextlib

import salt.client

from saltext_wgmesh.master import fleet


class Client:
    """Salt's client, as it returns with ``full_return``."""

    def cmd(self, nodes, function, **_):
        assert (nodes, function) == (["db1", "web1", "web2"], "wgmesh.apply")
        return {
            "db1": {"ret": {"wg0": {"digest": "d"}}, "retcode": 0, "jid": "1"},
            "web1": {"out": "no_return", "ret": "Minion did not return. [Not connected]"},
        }


def test_a_node_that_did_not_answer_is_missing(monkeypatch):
    """Salt tells of it in a sentence where the return would be (seen on 3008), or not at all."""
    monkeypatch.setattr(salt.client, "get_local_client", lambda **_: contextlib.nullcontext(Client()))
    assert fleet.apply({}, ["web2", "web1", "db1"]) == {"db1": {"wg0": {"digest": "d"}}}
