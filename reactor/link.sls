#!py
"""Links of a node died or came back. Only names that the event gives are passed on, and believed of nothing."""

from saltext_wgmesh.master import reactions


def run():
    return reactions.converge(__opts__, hint=data.get("id"), suspects=data.get("neighbours"))
