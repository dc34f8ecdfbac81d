import asyncio
import tomllib
from importlib.resources import files
from pathlib import Path

from windvane.commands.policy_files import complete_policy
from windvane.config import Settings
from windvane.processors.operations.base.user_operations import UserOperations
from windvane.records.events import iterate_events
from windvane.simulation.park import Source, wind_park
from windvane.simulation.tier import serve
from windvane.simulation.vibration import FULL_SCALE_G, VibrationSensor
from windvane.store.catalog.policy_table import PolicyTable

from tests.ingest.receiver import Message, ack, receiving

POLICIES = tomllib.loads((files("windvane.simulation") / "policies.toml").read_text(encoding="utf-8"))[
    "policy"
]
PARK = {source.tag: source for source in wind_park()}


def test_every_sensor_has_a_policy_that_knows_how_it_samples(tmp_path: Path) -> None:
    operations = UserOperations(tmp_path / "operations")
    table = PolicyTable([complete_policy(mapping, operations) for mapping in POLICIES])
    for source in PARK.values():
        policy = table.match(source.tag)
        assert policy is not None
        sensor = getattr(source.record, "sensor", None)
        if isinstance(sensor, VibrationSensor):
            decode = policy.pipeline[0].parameters
            assert (decode["dtype"], decode["rate_hz"]) == ("int16", sensor.rate_hz)
            assert decode["scale"] == FULL_SCALE_G / 32768
        else:
            assert policy.pipeline[0].parameters["fields"] == list(source.record(0))


def record_numbers(source: Source, messages: list[Message]) -> list[int]:
    """The numbers of what came from a source, after a look at each record."""
    numbers = []
    for message in messages:
        if message.tag.decode() == source.tag:
            ((time_ns, record),) = iterate_events(message.payload)
            number, rest = divmod(time_ns, source.period_ns)
            assert rest == 0
            expected = source.record(number - 1)
            assert record == {key.encode(): value for key, value in expected.items()}
            numbers.append(number - 1)
    return numbers


async def test_every_source_sends_its_records_one_after_the_other_until_it_is_stopped(tmp_path: Path) -> None:
    stop = asyncio.Event()
    async with receiving() as receiver:
        settings = Settings(home=tmp_path, forward=receiver.address)
        serving = asyncio.create_task(serve(settings, ready=lambda report: None, stop=stop))
        while len({message.tag for message in receiver.messages}) < len(PARK) or len(receiver.messages) < 60:
            await receiver.until(len(receiver.messages) + 1)
        stop.set()
        await serving
        assert receiver.connections == len(PARK)
        for source in PARK.values():
            numbers = record_numbers(source, receiver.messages)
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


async def test_what_is_never_acked_does_not_hold_up_the_end_or_other_sources(tmp_path: Path) -> None:
    stop = asyncio.Event()
    unwanted = b"turbine.t01.gearbox"

    def take_all_but_one(message: Message) -> bytes:
        return b"" if message.tag == unwanted else ack(message)

    async with receiving(take_all_but_one) as receiver:
        settings = Settings(home=tmp_path, forward=receiver.address)
        serving = asyncio.create_task(serve(settings, ready=lambda report: None, stop=stop))
        while sum(message.tag == b"turbine.t02.gearbox" for message in receiver.messages) < 3:
            await receiver.until(len(receiver.messages) + 1)
        stop.set()
        await serving
        assert any(message.tag == unwanted for message in receiver.messages)
