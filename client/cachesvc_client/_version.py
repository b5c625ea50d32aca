"""Which version is this? Read by the build, and told to the daemon."""

__version__ = "0.1.0"
