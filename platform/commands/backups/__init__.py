"""Backup and restore of a home: `windvane backup` and `windvane restore`.

Open `home_backup.py` first: it says in which order a running home is copied, and why that gives one state.
"""
