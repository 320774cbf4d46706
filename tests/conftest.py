"""For all tests."""

import logging

from hypothesis import settings

# Without a deadline for an example: on a busy machine it would fail tests whose code is right.
settings.register_profile("wgmesh", deadline=None)
settings.load_profile("wgmesh")


def pytest_unconfigure():
    """Salt's handlers flush what they held back when Python ends, into streams that pytest has closed by then."""
    logging.raiseExceptions = False
