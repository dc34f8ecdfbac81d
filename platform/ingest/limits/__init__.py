"""Limits of the gateway: memory, rates, fair turns, and work away from the event loop.

Open `off_loop.py` first.
"""
