"""The base of every operation: the abstract class, the registry, blocks, and saved states.

Open `operation.py` first.
"""
