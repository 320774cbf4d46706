#!py
"""A node published new facts. Nothing of the event is passed on: the runner reads the mine itself."""

from saltext_wgmesh.master.requests import reactions


def run():
    return reactions.converge_reaction(__opts__)
