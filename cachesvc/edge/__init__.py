"""Speaks with callers, over gRPC and HTTP; the modules here are what both use."""
