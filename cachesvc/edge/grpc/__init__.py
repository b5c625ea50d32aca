"""Speaks with callers over gRPC."""
