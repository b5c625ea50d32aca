"""Speaks with callers over HTTP: operations, probes, metrics, the status page."""
