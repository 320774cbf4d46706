#!py
"""A key was accepted, rejected or deleted; in whatever words the event says it, the runner reads the keys itself."""

from saltext_wgmesh.master import reactions


def run():
    return reactions.converge(__opts__)
