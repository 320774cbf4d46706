#!py
"""A node may no longer hold what it applied. Only its name is passed on; to apply a view twice does no harm."""

from saltext_wgmesh.master.requests import reactions


def run():
    return reactions.converge_reaction(__opts__, drifted=data.get("id"))
