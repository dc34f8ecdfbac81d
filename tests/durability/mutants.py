"""Faults in the order of durable steps: each is a change of the source, and a test that must notice it.

`mutation.py` applies them. If the source has changed, `test_mutants.py` reports which text is missing: adapt
the mutant to the new source, or remove it if its step was removed.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """In `file` below platform/, `old` (found once) becomes `new`; then `test` of this folder must fail."""

    name: str
    file: str
    old: str
    new: str
    test: str

    def __str__(self) -> str:
        return self.name


_LOG = "test_log.py::"
_STORE = "test_store.py::"
_GATEWAY = "test_gateway.py::"
_WORKER = "test_worker.py::"
_REPROCESS = "test_reprocess.py::"

MUTANTS = [
    # The log: publish, durable, ack.
    Mutant(
        "a mixed group is acked without fdatasync",
        "bus/embedded/group_commit.py",
        'is_sync = any(message.durability == "fsync"',
        'is_sync = all(message.durability == "fsync"',
        _LOG + "test_a_group_of_mixed_durabilities_is_synced_before_its_acks",
    ),
    Mutant(
        "readers see a message before fdatasync",
        "bus/embedded/segment_log.py",
        "        try:\n            os.fdatasync(self._fd)\n            self._check_in_place()\n",
        "        self._committed.words[END_WORD] = self.next_offset\n"
        "        try:\n            os.fdatasync(self._fd)\n            self._check_in_place()\n",
        _LOG + "test_a_message_is_written_then_synced_then_seen_by_readers_then_acked",
    ),
    Mutant(
        "a closed bus leaves what was only written unsynced",
        "bus/embedded/group_commit.py",
        "                    self._log.sync()\n                    self._ring()\n",
        "                    self._ring()\n",
        _LOG + "test_what_is_only_written_is_acked_before_readers_see_it",
    ),
    Mutant(
        "recovered pages are not synced",
        "bus/embedded/segment_log.py",
        "        os.fdatasync(self._fd)\n        self._position = self._promised_position = found.stop",
        "        self._position = self._promised_position = found.stop",
        _LOG + "test_a_power_cut_after_a_killed_process_takes_nothing_that_was_read_since",
    ),
    Mutant(
        "recovered pages are synced and not written again",
        "bus/embedded/segment_log.py",
        "for position in range(found.committed_stop, found.stop, READ_BYTES):",
        "for position in range(0):",
        _LOG + "test_what_a_failed_fdatasync_left_is_written_again_before_it_is_seen",
    ),
    Mutant(
        "the directory of a new log segment is not synced",
        "bus/embedded/segment_log.py",
        "                sync_directory(self._directory)\n            except OSError:",
        "                pass\n            except OSError:",
        _LOG + "test_a_segment_begins_when_the_one_before_is_durable_and_its_name_is_synced_first",
    ),
    Mutant(
        "a log segment begins before the one before is durable",
        "bus/embedded/segment_log.py",
        "            self.sync()  # a segment begins only when",
        "            pass  # a segment begins only when",
        _LOG + "test_a_segment_begins_when_the_one_before_is_durable_and_its_name_is_synced_first",
    ),
    Mutant(
        "the directory of a new log is not synced",
        "bus/embedded/segment_log.py",
        "        raise\n    sync_directory(directory.parent)\n",
        "        raise\n",
        _LOG + "test_a_new_topic_is_durable_down_from_the_bus_before_it_is_used",
    ),
    Mutant(
        "the name of a log is left to the process that made it, which was killed",
        "bus/embedded/segment_log.py",
        "            sync_directory(directory.parent)\n            self._recover()",
        "            self._recover()",
        _LOG + "test_a_power_cut_takes_nothing_acked_whenever_the_process_before_was_killed",
    ),
    Mutant(
        "the directory above the bus is not synced",
        "bus/embedded/bus_directory.py",
        "            make_directory(path)\n",
        "            path.mkdir(parents=True, exist_ok=True)\n",
        _LOG + "test_a_new_topic_is_durable_down_from_the_bus_before_it_is_used",
    ),
    Mutant(
        "the page of a new log is not synced before its name appears",
        "bus/embedded/shared_words.py",
        "            os.fsync(file.fileno())\n",
        "",
        _LOG + "test_a_new_log_is_whole_or_not_there",
    ),
    Mutant(
        "a group's positions are renamed before they are synced",
        "bus/embedded/group_positions.py",
        "            os.fdatasync(file.fileno())\n",
        "",
        _LOG + "test_positions_of_a_group_are_never_torn_and_never_gone",
    ),
    Mutant(
        "the name of a group's positions is not synced",
        "bus/embedded/group_positions.py",
        "        sync_directory(self._directory)\n",
        "",
        _LOG + "test_positions_of_a_group_are_never_torn_and_never_gone",
    ),
    Mutant(
        "retention does not ask who has still to read",
        "bus/embedded/segment_log.py",
        "if kept_bytes < self._retention_bytes or (needed is not None and following > needed):",
        "if kept_bytes < self._retention_bytes:",
        _LOG + "test_retention_drops_only_what_every_group_has_durably_read",
    ),
    # The gateway: what an ack stands for.
    Mutant(
        "a rejected chunk is acked before its dead letter is durable",
        "ingest/dead_letter_queue.py",
        "        writing.add_done_callback(written)\n        return kept",
        "        kept.set_result(None)\n        return kept",
        _GATEWAY + "test_a_rejected_chunk_is_in_the_dead_letters_before_its_ack",
    ),
    Mutant(
        "a rejected chunk is acked though its dead letter failed",
        "ingest/gateway.py",
        "submission.fail(done.exception() or rejection)",
        "submission.fail(rejection)",
        _GATEWAY + "test_a_rejected_chunk_is_not_acked_where_the_dead_letters_cannot_be_written",
    ),
    Mutant(
        "a failed chunk stays known, so that its retry fails again",
        "ingest/recent_chunks.py",
        "        if is_stored:\n",
        "        if chunk:\n",
        _GATEWAY + "test_no_ack_comes_while_the_disk_fails_and_the_next_try_is_stored",
    ),
    Mutant(
        "a repetition is acked while the chunk itself is still on its way",
        "ingest/gateway.py",
        "            first.add_done_callback(submission.end_as)\n        return True",
        "            submission.succeed()\n        return True",
        _GATEWAY + "test_a_repetition_is_acked_behind_the_chunk_itself",
    ),
    Mutant(
        "memory is charged for announced bytes",
        "ingest/forward/framing.py",
        "held = max(held, min(self._need - self._head, self._shown))",
        "held = max(held, self._need - self._head)",
        _GATEWAY + "test_a_message_is_charged_for_what_came_of_it_not_for_what_it_announces",
    ),
    # The store.
    Mutant(
        "the length is stored before the bytes that it shows",
        "store/files/segmented_writer.py",
        "        if total <= self.segment_bytes - offset % self.segment_bytes:\n",
        "        self._head.length = offset + total\n"
        "        if total <= self.segment_bytes - offset % self.segment_bytes:\n",
        _STORE + "test_bytes_are_written_before_the_length_that_shows_them",
    ),
    Mutant(
        "segments are unlinked before the new beginning is durable",
        "store/files/segmented_writer.py",
        '        self._sync(f"{self._path}/head")\n        try:\n            remove_segments(',
        "        try:\n            remove_segments(",
        _STORE + "test_the_beginning_is_dropped_on_the_disk_before_segments_are_unlinked",
    ),
    Mutant(
        "flush leaves the name of a second segment to chance",
        "store/files/segmented_writer.py",
        "        self._unsynced_directories.add(self.directory)\n",
        "",
        _STORE + "test_no_append_waits_for_the_disk_and_flush_syncs_the_names_of_new_segments",
    ),
    Mutant(
        "flush leaves the description of an array to chance",
        "store/files/data_array_writer.py",
        "        sync_description(self.directory)\n",
        "",
        _STORE + "test_a_stream_and_its_array_keep_what_was_synced_through_every_power_cut[flush]",
    ),
    Mutant(
        "a model is renamed before it is synced",
        "store/model_files.py",
        "                os.fsync(file.fileno())\n",
        "",
        _STORE + "test_a_model_that_was_put_is_there_after_every_power_cut",
    ),
    Mutant(
        "the name of a model is not synced",
        "store/model_files.py",
        "            sync_directory(self._folder)\n",
        "",
        _STORE + "test_a_model_that_was_put_is_there_after_every_power_cut",
    ),
    # The worker: append, results durable, syncfs, commit.
    Mutant(
        "a checkpoint is committed without syncfs",
        "processors/worker/checkpointing.py",
        "            self._store.sync()\n",
        "            pass\n",
        _WORKER + "test_results_and_appends_are_durable_before_the_checkpoint",
    ),
    Mutant(
        "a checkpoint is committed before the published results are durable",
        "processors/worker/checkpointing.py",
        "        return stream.snapshot is not None and self._publisher.is_durable(\n"
        "            stream.reference, stream.snapshot.results_mark\n        )\n",
        "        return stream.snapshot is not None\n",
        _WORKER + "test_results_and_appends_are_durable_before_the_checkpoint",
    ),
    Mutant(
        "a commit waits for no disk",
        "store/databases/sqlite_file.py",
        "PRAGMA synchronous = FULL",
        "PRAGMA synchronous = NORMAL",
        _WORKER + "test_a_checkpoint_is_one_durable_step",
    ),
    Mutant(
        "the archive's uid is ignored",
        "store/files/data_stream_writer.py",
        "        if committed is not None and committed.uid == self.uid:\n",
        "        if committed is not None:\n",
        _WORKER + "test_a_checkpoint_of_another_archive_is_not_applied_to_this_one",
    ),
    Mutant(
        "positions are committed to the bus before the checkpoint",
        "processors/worker/worker.py",
        "            positions = await self._checkpointing.commit()\n",
        "            await self._report({each.key: each.frontier for each in self._owned if each.frontier})\n"
        "            positions = await self._checkpointing.commit()\n",
        _WORKER + "test_a_position_is_committed_to_the_bus_only_after_its_checkpoint",
    ),
    Mutant(
        "outputs are marked as committed before the commit",
        "processors/worker/checkpointing.py",
        "        self._checkpoints.commit(\n",
        "        for stream, each in snapshot.streams.items():\n"
        "            if stream.pipeline is not None:\n"
        "                stream.pipeline.mark_committed(each.checkpoint)\n"
        "        self._checkpoints.commit(\n",
        _WORKER + "test_an_output_is_marked_as_committed_only_behind_its_checkpoint",
    ),
    Mutant(
        "the buses of a home are renamed before they are synced",
        "processors/worker/progress/former_buses.py",
        "        os.fsync(file.fileno())\n",
        "",
        _WORKER + "test_a_bus_that_a_home_was_used_with_is_remembered_after_every_power_cut",
    ),
    Mutant(
        "the name of the buses of a home is not synced",
        "processors/worker/progress/former_buses.py",
        "        sync_directory(settings.home)\n",
        "",
        _WORKER + "test_a_bus_that_a_home_was_used_with_is_remembered_after_every_power_cut",
    ),
    Mutant(
        "a head that a power cut took stops its stream",
        "store/files/data_stream_writer.py",
        "                self._begin_another()\n",
        "                pass\n",
        _STORE + "test_a_stream_and_its_array_keep_what_was_synced_through_every_power_cut[syncfs]",
    ),
    # The swap of reprocess.
    Mutant(
        "new outputs are committed before they are durable",
        "processors/worker/reprocessing/reprocess.py",
        "            self._store.sync()  # a commit must not name",
        "            pass  # a commit must not name",
        _REPROCESS + "test_new_outputs_are_durable_then_committed_then_put_in_place",
    ),
    Mutant(
        "new outputs are put in place before they are committed",
        "processors/worker/reprocessing/reprocess.py",
        "            self._checkpoints.commit(\n",
        "            self._put_in_place(made)\n            self._checkpoints.commit(\n",
        _REPROCESS + "test_new_outputs_are_durable_then_committed_then_put_in_place",
    ),
]
