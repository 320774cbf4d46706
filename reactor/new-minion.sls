#!py
"""A minion started: for the first time, again, or after its key was accepted."""

from saltext_wgmesh.master.requests import reactions


def run():
    return reactions.converge_reaction(__opts__, started=data.get("id"))
