"""Logs a failure that is tried again many times a second once, then rarely, and its end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

LOG_AGAIN_AFTER = 600.0
"""Seconds after which a failure that lasts is logged again."""


class ErrorLog:
    """The failures that last and were logged, by object. *clock* returns monotonic seconds."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._logged: dict[str, tuple[str, float]] = {}
        """Object → the failure that was logged, and when."""

    def failed(self, message: str, subject: object, error: Exception) -> None:
        """Log that *message*, with *subject* in it, failed by *error*, unless the same was logged lately."""
        name, reason, now = message % subject, str(error), self._clock()
        logged = self._logged.get(str(subject))
        if logged is None or logged[0] != reason or now - logged[1] > LOG_AGAIN_AFTER:
            self._logged[str(subject)] = reason, now
            self._log.warning("%s: %s", name, reason)

    def succeeded(self, message: str, subject: object) -> None:
        """Log *message*, with *subject* in it, if the last attempt for *subject* failed."""
        if self._logged.pop(str(subject), None):
            self._log.info(message, subject)
