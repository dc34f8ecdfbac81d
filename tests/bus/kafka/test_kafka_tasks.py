"""Log lines for aiokafka's dropped tasks, and for dropped tasks of other code."""

import asyncio
import gc
import logging

import pytest
from aiokafka.errors import KafkaConnectionError
from windvane.bus.kafka.background_tasks import BackgroundErrors


async def drop_a_task_that_raises(error: Exception) -> None:
    async def fail() -> None:
        raise error

    task = asyncio.get_running_loop().create_task(fail())
    await asyncio.wait([task])
    del task
    gc.collect()


async def test_each_kind_of_kafka_client_error_is_logged_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    loop = asyncio.get_running_loop()
    BackgroundErrors.watch(loop)
    BackgroundErrors.watch(loop)
    for _ in range(3):
        await drop_a_task_that_raises(KafkaConnectionError("connection to 10.0.0.5:9092 lost"))
    (record,) = caplog.records
    assert "connection to 10.0.0.5:9092 lost" in record.getMessage()
    assert record.exc_info is None


async def test_errors_of_other_tasks_are_reported_as_before(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    handled = []
    loop.set_exception_handler(lambda _, context: handled.append(context["exception"]))
    BackgroundErrors.watch(loop)
    error = ValueError("not of Kafka")
    await drop_a_task_that_raises(error)
    assert handled == [error]
