"""The web tier: the HTTP API, the live feed and the UI.

Open `app.py` first: it lists every route.
"""
