"""The Apache Kafka engine.

Open `bus.py` first: it is the engine. `producer/` publishes; `consumer/` reads as a member of a group.
"""
