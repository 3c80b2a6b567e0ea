"""Measurements, each beside references that were measured in the same run: machines differ, ratios tell.

``report`` is what a run comes to, ``stage`` the workers that it looks at, ``references`` what they are compared with,
and each module with a ``measure`` a subject.
"""
