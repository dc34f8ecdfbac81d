"""Publishes to Kafka: in order, each message once, and without blocking the caller.

Open `producer.py` first: it is the producer of the interface. A message waits in `partition_queue` until
`sender` sends it through a link (`links`), in a batch (`record_batches`). `pending_messages` has its deadline
and its result, `partitioning` finds its partition, `outage` the reason that the brokers do not answer.
"""
