"""For all tests."""

import logging


def pytest_unconfigure():
    """Salt's handlers flush what they held back when Python ends, into streams that pytest has closed by then."""
    logging.raiseExceptions = False
