#!py
"""A key was accepted, rejected or deleted. Nothing of the event is passed on: the runner reads the keys itself."""

from saltext_wgmesh.master.requests import reactions


def run():
    return reactions.converge_reaction(__opts__)
