"""Translates between the origin's objects and the daemon's blobs.

Synchronous and pure: bytes in, values out, no clock, no files, no torch. Runs in
worker threads. The engine is handed `codec/members.py`.
"""
