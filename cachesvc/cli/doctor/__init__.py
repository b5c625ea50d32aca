"""What would go wrong with these settings on this host?

One small function for each check, by subject; `checks.py` lists them, `command.py` shows
what they found. A check looks and changes nothing that stays.
"""
