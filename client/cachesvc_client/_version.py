"""This package's version, for the build and for the daemon."""

__version__ = "0.1.0"
