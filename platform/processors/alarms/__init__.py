"""Alarms: transitions from rows, evidence, the relay to the catalog, and the webhook.

Open `transitions.py` first: pure state machines. `stream_alarms.py` applies them to one data stream.
"""
