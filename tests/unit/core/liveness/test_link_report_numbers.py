"""Link reports: what a node accepts from another."""

from __future__ import annotations

import pytest

from saltext_wgmesh.core.errors import ViewError
from saltext_wgmesh.core.liveness.link_report import LinkReport, LinkState, LinkStatus


@pytest.mark.parametrize("field", ["since", "hold", "interval"])
@pytest.mark.parametrize("value", [float("inf"), float("nan"), -1, 1e300, "x", None, []])
def test_report_with_numbers_out_of_range_is_refused(field, value):
    """Whatever a damaged file or another node says, no such number gets further."""
    link = LinkStatus(neighbour="r1", interface="wg0-u1", state=LinkState.UP, since=7.0)
    raw = LinkReport(mesh="wg0", from_watcher=True, links={"r1": link}).as_dict()
    raw["links"]["r1"][field] = value
    with pytest.raises(ViewError, match="damaged"):
        LinkReport.from_dict(raw)
