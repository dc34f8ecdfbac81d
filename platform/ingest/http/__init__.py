"""HTTP ingest: the routes of the gateway.

Open `routes.py` first.
"""
