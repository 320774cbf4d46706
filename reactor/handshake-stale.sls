#!py
"""Peers of a node without a watcher stopped to answer, or answer again. Only names are passed on, as hints."""

from saltext_wgmesh.master import reactions


def run():
    return reactions.converge(__opts__, hint=data.get("id"), suspects=data.get("neighbours"))
