"""The catalog: the database of documents, and the document types policy and alarm.

Open `catalog.py` first, then `policy.py` and `alarms.py`.
"""
