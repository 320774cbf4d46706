"""Direct links are made and removed while they carry traffic."""

from __future__ import annotations

from ....drill import ways
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


def test_a_site_is_linked_no_more(mesh: Mesh):
    changed(mesh, "site direct: false", edited(_apart), lambda: unlinked(mesh, *SITE[:2]), SITE)
    assert len(ways(mesh, PAIR)[("app1", "app2")]) == 3


def test_one_pair_of_it_is(mesh: Mesh):
    changed(mesh, "link added", edited(_apart, _paired), lambda: linked(mesh, *SITE[:2]), ())
    assert ways(mesh, PAIR)[("app1", "app2")] == ("app1", "app2")


def test_that_link_is_removed(mesh: Mesh):
    changed(mesh, "link removed", edited(_apart), lambda: unlinked(mesh, *SITE[:2]), ("app1", "app2"))


def test_a_hub_has_no_direct_links(mesh: Mesh):
    concerned = (*SITE, "web1", "web2")
    changed(mesh, "partial to hub", edited(_hub), lambda: unlinked(mesh, "web1", "web2"), concerned)
    assert len(ways(mesh, {"web1": "web2"})[("web1", "web2")]) == 3


def test_a_partial_mesh_has_them_again(mesh: Mesh):
    changed(mesh, "hub to partial", policy(), lambda: linked(mesh, "web1", "web2") and linked(mesh, "app2", "gw1"), ())
    assert mesh.faults() == []
