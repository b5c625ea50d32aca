"""Measures misses, and full and large caches. Start: docs/performance-misses.md."""
