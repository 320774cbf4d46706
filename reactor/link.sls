#!py
"""Links of a node went down or came up. Only names are passed on, as hints where to look."""

from saltext_wgmesh.master.requests import reactions


def run():
    return reactions.converge_reaction(__opts__, hint=data.get("id"), suspects=data.get("neighbours"))
