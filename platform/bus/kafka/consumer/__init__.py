"""Reads from Kafka as a member of a consumer group.

Open `consumer.py` first: it is the consumer of the interface. The group: `assignor` distributes partitions,
`assignment` knows which of them are held, `handover` moves them, `group_client` runs aiokafka's client. The
messages: `fetcher` collects what aiokafka has fetched, `partition_reads` knows where each partition is read,
`read_errors` and `halts` stop the reading of those that cannot be read.
"""
