"""A whole engine for tests, and the parts that a test steers."""
