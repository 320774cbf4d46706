#!py
"""Peers of a node without a watcher stopped answering, or answer again. Only names are passed on, as hints."""

from saltext_wgmesh.master.requests import reactions


def run():
    return reactions.converge_reaction(__opts__, hint=data.get("id"), suspects=data.get("neighbours"))
