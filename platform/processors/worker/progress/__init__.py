"""Partitions, positions and chunks in progress: what the worker owns and how far it has come.

Open `ownership.py` first.
"""
