"""The Apache Kafka engine.

Open `bus.py` first: it is the engine. `producer.py` publishes; `consumer.py` reads as a member of a group.
"""
