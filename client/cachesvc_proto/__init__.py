"""The wire contract of cachesvc, generated from `proto/cachesvc/v1/cache.proto`."""
