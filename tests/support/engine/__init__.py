"""A whole engine for tests, and what a test steers in it."""
