#!py
"""A node published new facts. Nothing of the event is believed or passed on: the runner reads the mine itself."""

from saltext_wgmesh.master import reactions


def run():
    return reactions.converge(__opts__)
