#!py
"""A node may not hold any more what it applied. Only its name is passed on; applying a view twice does no harm."""

from saltext_wgmesh.master import reactions


def run():
    return reactions.converge(__opts__, drifted=data.get("id"))
