"""Moves entries between tiers, origin and callers, and keeps the promises while doing so."""
