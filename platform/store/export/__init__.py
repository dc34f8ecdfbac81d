"""Exports of arrays and streams: formats and columns.

Open `formats.py` first.
"""
