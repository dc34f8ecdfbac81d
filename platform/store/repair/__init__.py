"""Verification and repair of a home: damage is found, and set aside, never deleted.

Open `scrub.py` first: it finds what is damaged or missing.
"""
