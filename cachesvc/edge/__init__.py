"""Speaks with callers: gRPC and HTTP, on top of the engine."""
