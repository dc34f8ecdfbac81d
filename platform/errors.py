"""The one tree of errors.

Every message names the thing, the cause and the next step, and is fit to be shown to a user as it is.
Where a built-in exception says the same, the class mixes it in, so that callers may catch either.
"""

from collections.abc import Mapping

from .rejections import RejectionCode


class WindvaneError(Exception):
    """The root: whoever catches this catches all that Windvane raises on purpose."""


class ConfigInvalid(WindvaneError, ValueError):
    """A setting, on the command line, in the environment or in windvane.toml, cannot be used."""


class PolicyInvalid(WindvaneError, ValueError):
    """An ingestion policy breaks its own rules; the one in force stays."""


class DocumentNotFound(WindvaneError, LookupError):
    """The catalog has no such document."""


class RevisionConflict(WindvaneError, RuntimeError):
    """The document was changed by somebody else since it was read."""


class StreamNotFound(WindvaneError, LookupError):
    """The store has no data stream of that reference."""


class ArrayNotFound(WindvaneError, LookupError):
    """The store has no data array of that reference."""


class RangeGone(WindvaneError, IndexError):
    """The bytes or rows asked for were there once, and retention has dropped them."""


class StoreLocked(WindvaneError, RuntimeError):
    """Another writer holds the file: there is one writer at a time."""


class StoreFailed(WindvaneError, OSError):
    """The whole store is in trouble: a write or sync failed, and the writer has stopped.

    A later fsync would report success for lost pages, so the worker starts over at its last checkpoint.
    """


class AddressSpaceUsed(StoreFailed):
    """The process has no room for another mapping of the store: RLIMIT_AS, or vm.max_map_count."""


class DiskFull(StoreFailed):
    """The file system has no room (ENOSPC, EDQUOT). Nothing that was acked is lost; wait for room."""


class DatabaseDamaged(StoreFailed):
    """A database file is damaged or cannot be read. It stays as it is until a command repairs it."""


class StreamDamaged(WindvaneError, OSError):
    """The files of one stream or array do not hold what was committed, or cannot be read (EIO).

    That stream stops, and its bytes stay as they are; every other stream goes on.
    """


class CheckpointMissing(StreamDamaged):
    """A stream or array has bytes that may have been committed, and no checkpoint covers them."""


class BusUnavailable(WindvaneError, ConnectionError):
    """The bus cannot take or give messages now; what was not acked stays with its sender."""


class EnvelopeInvalid(WindvaneError, ValueError):
    """Bytes on the bus that are no chunk in Avro single-object encoding."""


class FramingError(WindvaneError, ValueError):
    """The bytes of a connection are no forward protocol; the connection is closed, not resynchronised."""


class ChunkRefused(WindvaneError, ValueError):
    """A well-framed chunk that may not enter; `code` is its row of `rejections.REJECTIONS`."""

    def __init__(self, code: RejectionCode, message: str) -> None:
        super().__init__(message)
        self.code: RejectionCode = code


class TimeInvalid(ChunkRefused):
    """A value in the place of an event's time that is not a time, or lies outside of 1970 to 2106."""

    def __init__(self, message: str) -> None:
        super().__init__("bad-time", message)


class JsonInvalid(WindvaneError, ValueError):
    """A text in the place of a record that is not JSON, not an object, or nested too deeply."""


class BodyTooSlow(WindvaneError, TimeoutError):
    """The body of an HTTP request pauses too long, or is slower than the server's floor."""


class OperationFailed(WindvaneError, RuntimeError):
    """A step of a pipeline cannot work on what it was given."""


class DeadLetterNotFound(WindvaneError, LookupError):
    """No dead letter of that number: it was never kept, was dropped, or had to leave for newer ones."""


class DocumentInvalid(WindvaneError, ValueError):
    """A document that the catalog cannot keep: its type, state, reference, title or body is not allowed."""


class TransitionRejected(WindvaneError, ValueError):
    """A document is not in a state that the transition starts from."""


class TransitionNotFound(WindvaneError, LookupError):
    """The type of the document has no transition of that name."""


class AttachmentNotFound(WindvaneError, LookupError):
    """The document has no attachment of that name."""


class ChangesForgotten(WindvaneError, LookupError):
    """The catalog no longer knows all deletions since that revision; read all documents instead."""


class CatalogUnavailable(WindvaneError, ConnectionError):
    """The catalog's database cannot be reached or used now; what was asked did not happen."""


class BusLocked(BusUnavailable):
    """Another process writes to this partition of the embedded bus: there is one writer at a time."""


class BusCorrupt(WindvaneError, OSError):
    """A message that was durable on the bus is damaged or gone; it is never skipped silently."""


class PartitionHalted(WindvaneError):
    """A partition of the bus cannot be read on; all others can.

    The first offset that cannot be read is `offset`. Reading can go on at `resume_at` (None: not known), and
    then `missing` messages are missing (None: not known). `partition` is that of `topic`.
    """

    def __init__(
        self,
        message: str,
        *,
        topic: str,
        partition: int,
        offset: int,
        resume_at: int | None,
        missing: int | None,
    ) -> None:
        super().__init__(message)
        self.topic = topic
        self.partition = partition
        self.offset = offset
        self.resume_at = resume_at
        self.missing = missing


class MessagesDamaged(PartitionHalted, BusCorrupt):
    """Messages of a partition were durable, and are damaged or lost now."""


class PartitionUnreadable(PartitionHalted, BusUnavailable):
    """The disk could not read a partition's files; it is tried again every few seconds."""


class MessagesGone(PartitionHalted, RangeGone):
    """The position lies outside the log: retention has dropped its messages, or they were never written."""


class LogReplaced(MessagesGone):
    """The topic was deleted and made again: the position counts messages of a log that is gone."""


class DiskReserveUsed(BusUnavailable):
    """The disk has no room beyond its reserve; what was not acked stays with its sender."""


class TierFailed(WindvaneError, RuntimeError):
    """A process of the platform could not be started; those that were are ended again."""


class HomeNotFound(WindvaneError, LookupError):
    """There is no home directory where one is to be looked into."""


class ExportFailed(WindvaneError, ValueError):
    """A data array cannot be written in the format that was asked for."""


class InputInvalid(WindvaneError, ValueError):
    """A file that is to be sent does not hold what its format says; `send` stops there."""


class HandshakeFailed(WindvaneError, ConnectionError):
    """The two ends of a forward connection do not know each other: another key, user or protocol."""


class PartitionLost(WindvaneError, RuntimeError):
    """Another worker has taken partitions up since this one did; nothing of what it wanted was committed.

    `owners` names, by (topic, partition), who has them now.
    """

    def __init__(self, owners: Mapping[tuple[str, int], str]) -> None:
        which = ", ".join(f"{topic}/{partition} ({who})" for (topic, partition), who in owners.items())
        super().__init__(
            f"others have taken over: {which}; this worker lets go of them, what it did there since its last "
            "checkpoint is done again by them"
        )
        self.owners = owners


class RateExceeded(BusUnavailable):
    """More than a policy's rate was sent; nothing was taken in, the sender is to come again after a while."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OperationFileInvalid(WindvaneError, ValueError):
    """A file in HOME/operations cannot be loaded; the operations that it had before stay."""


class ExtensionInvalid(WindvaneError, ImportError):
    """What an installed package registers cannot be used; the message names the package and the cause."""


class ResultsNotPublished(WindvaneError, OSError):
    """The worker had to end while the bus did not take its results; no checkpoint covers them."""


class ModelNotFound(WindvaneError, LookupError):
    """There is no model of that stream and step."""


class ModelRefused(WindvaneError, PermissionError):
    """A model is not read, since others could have written it; or not taken up, since it does not fit."""


class FileUntrusted(ModelRefused):
    """A file that can run code when it is read is not read, because another user can write it."""


class StateInvalid(WindvaneError, ValueError):
    """A saved state of an operation cannot be decoded; `code` is the stable name of the reason."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class AlarmActionRefused(WindvaneError, ValueError):
    """What was asked of an alarm does not fit its state, or says too little or too much."""


class AlarmShelvedTooLong(AlarmActionRefused):
    """An alarm cannot be shelved for more than a year."""

    def __init__(self) -> None:
        super().__init__("An alarm is shelved for a year at most; clear it instead.")


class RowsWouldBeLost(WindvaneError, RuntimeError):
    """The outputs that were made again lack rows that those in place have; those in place stay."""
