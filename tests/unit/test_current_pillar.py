"""Runs without a master say so where they need one."""

import pytest

from saltext_wgmesh import current_pillar
from saltext_wgmesh.core.errors import HostError

LOCAL = {"file_client": "local", "__cli": "salt-call"}


@pytest.mark.parametrize(
    "opts", [LOCAL, {"file_client": "remote", "master_type": "disable"}], ids=["local", "disabled"]
)
def test_masterless_run_says_so(opts):
    """The error names the purpose, and the remedy."""
    with pytest.raises(HostError, match=r"^a view needs the master, and this run is without one: call it without"):
        current_pillar.require_master(opts, "a view")


@pytest.mark.parametrize("opts", [{"file_client": "remote"}, {**LOCAL, "use_master_when_local": True}])
def test_run_with_master_goes_on(opts):
    """A minion may read files from its own disk and still have a master."""
    current_pillar.require_master(opts, "a view")
