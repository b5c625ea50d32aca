"""Two builds of this product side by side, the older one twice: see `__main__.py`."""
