"""`send --dry-run`: what would be sent, and nothing sent."""

import click

from ...store.databases.excerpt import excerpt_of
from ..common.progress import plural
from .reading import Reading

SHOWN_EVENTS = 3


def show_instead_of_sending(reading: Reading) -> None:
    """Reads to the end; the first events go to standard output, how many there are to standard error."""
    events = chunks = 0
    for batch in reading.batches:
        for chunk in batch:
            if events < SHOWN_EVENTS:
                for line in excerpt_of(chunk.payload)[: SHOWN_EVENTS - events]:
                    click.echo(line)
            events += chunk.events
            chunks += 1
    total = f"{plural(events, 'event')} in {plural(chunks, 'chunk')}"
    click.echo(f"would send {total}; nothing was sent", err=True)
