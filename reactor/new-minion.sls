#!py
"""A minion started: for the first time, again, or after its key was accepted by whatever way."""

from saltext_wgmesh.master import reactions


def run():
    return reactions.converge(__opts__, started=data.get("id"))
