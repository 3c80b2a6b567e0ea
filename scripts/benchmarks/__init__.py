"""Measurements, each beside a reference that was measured in the same run: machines differ, ratios tell."""
