"""Failing steps: one entry for each step, until it succeeds."""

from windvane.processors.worker.pipeline.step_failures import MAX_MESSAGE, StepFailures


def told(failures: StepFailures) -> list[tuple[str, str, str, int, bool]]:
    return [
        (one.stream, one.step, one.message, one.times, one.recovered_ns is None) for one in failures.listed()
    ]


def test_a_step_has_one_entry_and_is_failing_until_it_succeeds() -> None:
    failures = StepFailures(10)
    failures.add("a", "model", "first")
    failures.add("b", "model", "other")
    failures.add("a", "model", "second")
    assert told(failures) == [("b", "model", "other", 1, True), ("a", "model", "second", 2, True)]
    failures.recover("a", {"pcm", "model"})
    failures.recover("c", {"model"})
    assert told(failures) == [("b", "model", "other", 1, True), ("a", "model", "second", 2, False)]
    failures.add("a", "model", "third")
    assert told(failures)[-1] == ("a", "model", "third", 3, True)


def test_a_noisy_step_does_not_hide_another_stream() -> None:
    failures = StepFailures(3)
    failures.add("quiet", "model", "once")
    for number in range(100):
        failures.add("noisy", "model", str(number))
    assert told(failures) == [("quiet", "model", "once", 1, True), ("noisy", "model", "99", 100, True)]
    for number in range(3):
        failures.add(f"s{number}", "model", "x" * 2 * MAX_MESSAGE)
    assert [stream for stream, *_ in told(failures)] == ["s0", "s1", "s2"]
    assert {len(message) for _, _, message, *_ in told(failures)} == {MAX_MESSAGE}


def test_chunks_of_a_step_do_not_clear_the_failure_of_its_training() -> None:
    failures = StepFailures(3)
    failures.add("a", "model", "killed", of_training=True)
    failures.recover("a", {"model"})
    assert told(failures) == [("a", "model", "killed", 1, True)]
    failures.recover("a", {"model"}, of_training=True)
    assert told(failures) == [("a", "model", "killed", 1, False)]


def test_failures_of_removed_steps_are_dropped() -> None:
    failures = StepFailures(5)
    for step in ("old", "kept", "archive"):
        failures.add("a", step, "boom")
    failures.add("b", "old", "boom")
    failures.forget_others("a", ("kept", "new"))
    assert [(stream, step) for stream, step, *_ in told(failures)] == [
        ("a", "kept"),
        ("a", "archive"),
        ("b", "old"),
    ]
