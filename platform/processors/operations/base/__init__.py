"""What every operation builds on: the abstract class, the registry, blocks, and saved states.

Open `operation.py` first.
"""
