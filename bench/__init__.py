"""Measurements, each beside a reference taken in the same run. Run with ``make bench`` or ``python -m bench``."""
