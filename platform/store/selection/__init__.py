"""Selecting from streams and arrays by time and by column name, whatever the store engine.

Open `time_ranges.py` first.
"""
