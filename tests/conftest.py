"""Fixtures for the tests of every part."""

from tests.kafka_broker import kafka

__all__ = ["kafka"]
