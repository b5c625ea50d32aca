"""Real servers and scripted faults that the tests start on loopback."""
