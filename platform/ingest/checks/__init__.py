"""Whether a payload is well-formed and its events follow the schema of their policy.

Open `payload.py` first, then `schema.py`.
"""
