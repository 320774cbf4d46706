"""The version of this package. The build, the watcher's unit and the planner's fingerprint read it here."""

__version__ = "0.1.0"
