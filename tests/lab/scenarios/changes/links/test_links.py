"""Direct links are added and removed under traffic."""

from __future__ import annotations

from ....disruption import ways
from ....mesh import Mesh
from ..edits import changed, edited, linked, policy, unlinked

SITE = ("app1", "app2", "gw1")
PAIR = {"app1": "app2"}


def _apart(mesh: dict) -> None:
    mesh["sites"]["nyc"]["direct"] = False


def _paired(mesh: dict) -> None:
    mesh["links"] = [["app1", "app2"]]


def _hub(mesh: dict) -> None:
    mesh["topology"] = "hub"


def test_site_loses_its_direct_links(mesh: Mesh):
    """With ``direct: false`` the pairs of a site use a relay."""
    changed(mesh, "site direct: false", edited(_apart), lambda: unlinked(mesh, *SITE[:2]), SITE)
    assert len(ways(mesh, PAIR)[("app1", "app2")]) == 3


def test_single_pair_gets_direct_link(mesh: Mesh):
    """An entry in ``links`` gives one pair of the site a direct link."""
    changed(mesh, "link added", edited(_apart, _paired), lambda: linked(mesh, *SITE[:2]), ())
    assert ways(mesh, PAIR)[("app1", "app2")] == ("app1", "app2")


def test_single_pair_loses_direct_link(mesh: Mesh):
    """The direct link is removed with its entry in ``links``."""
    changed(mesh, "link removed", edited(_apart), lambda: unlinked(mesh, *SITE[:2]), ("app1", "app2"))


def test_hub_has_no_direct_links(mesh: Mesh):
    """When a partial mesh becomes a hub, pairs of a site use a relay."""
    concerned = (*SITE, "web1", "web2")
    changed(mesh, "partial to hub", edited(_hub), lambda: unlinked(mesh, "web1", "web2"), concerned)
    assert len(ways(mesh, {"web1": "web2"})[("web1", "web2")]) == 3


def test_partial_mesh_gets_direct_links_back(mesh: Mesh):
    """When the hub becomes a partial mesh again, pairs of a site have direct links."""
    changed(mesh, "hub to partial", policy(), lambda: linked(mesh, "web1", "web2") and linked(mesh, "app2", "gw1"), ())
    assert mesh.faults() == []
