"""A WireGuard mesh that Salt plans, proves, applies and keeps alive."""

from saltext_wgmesh.version import __version__

__all__ = ["__version__"]
