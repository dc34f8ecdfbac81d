"""Publishes results of one data stream: the rows of steps that request it, and its records as Avro."""

import json
from functools import lru_cache

from ....bus.messages.results import rows_head, rows_parts
from ....bus.topic_names import rows_topic
from ....store.catalog.policy import Policy
from ....store.interface import ArrayWriter, StreamWriter
from ...operations.base.block import Block
from .avro_records import AvroRecords
from .results_publisher import ResultsPublisher


class Publication:
    """Passes a stream's results to the publisher, with their numbers in the store."""

    def __init__(self, stream: str, policy: Policy, publisher: ResultsPublisher) -> None:
        self._stream = stream
        self._policy = policy
        self._publisher = publisher
        self._topics = {
            step.name: rows_topic(policy.reference, step.name) for step in policy.pipeline if step.publish
        }
        self._heads: dict[str, tuple[object, bytes]] = {}
        self._records: AvroRecords | None = None
        if policy.encoding == "avro":
            self._records = _avro_records(policy.reference, policy.partitions, json.dumps(policy.schema))

    def records(self, payload: bytes, archive: StreamWriter, *, first_event: int) -> None:
        """Publishes the events of a chunk, the first of which has the number `first_event` in the archive.

        Raises OperationFailed or ChunkRejected if they cannot be published, ResultsNotPublished if nothing
        can.
        """
        if self._records is not None:
            parts = self._records.parts(
                payload,
                stream=self._stream,
                archive=archive.uid,
                first_event=first_event,
                part_bytes=self._publisher.part_bytes,
                max_bytes=self._publisher.max_message_bytes,
            )
            self._publisher.put(parts)

    def rows(self, step: str, block: Block, array: ArrayWriter, *, first_row: int) -> None:
        """Publishes the output of a step that was appended to `array`, as its rows from `first_row`.

        Raises ValueError if it cannot be published, ResultsNotPublished if nothing can.
        """
        topic = self._topics.get(step)
        if topic is None:
            return
        for part in rows_parts(
            block.rows,
            block.row_times_ns,
            topic=topic,
            stream=self._stream,
            head=self._head(step, block, array),
            first_row=first_row,
            partitions=self._policy.partitions,
            part_bytes=self._publisher.part_bytes,
            max_bytes=self._publisher.max_message_bytes,
        ):
            self._publisher.put([part])

    def _head(self, step: str, block: Block, array: ArrayWriter) -> bytes:
        described = (array.uid, block.columns)
        kept = self._heads.get(step)
        if kept is None or kept[0] != described:
            head = rows_head(
                stream=self._stream,
                output=step,
                array=array.uid,
                dtype=array.dtype.str,
                row_shape=array.row_shape,
                columns=block.columns,
            )
            kept = self._heads[step] = (described, head)
        return kept[1]


@lru_cache(maxsize=256)
def _avro_records(reference: str, partitions: int, schema: str) -> AvroRecords:
    # Compiled once for the streams of a policy.
    return AvroRecords(reference, json.loads(schema), partitions=partitions)
