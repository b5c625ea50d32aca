"""Decisions: plain synchronous Python over plain values, with the time handed in."""
