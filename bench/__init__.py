"""Measurements with their goals. ``make bench`` runs them all, ``make bench NAME=scale`` one.

Each module below has ``run() -> list[Row]``. Ratios are taken within one run, since machines differ.
"""
