"""Compares backends on the same tilts: speed, memory, and whether they say the same."""
