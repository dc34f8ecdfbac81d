"""Flush messages for the worker, which cannot publish on a bus that has one writer.

POST /flushes [{"policy": …, "tag": …, "until_ns": …}, …]      204: they are durable on the bus
"""

from http import HTTPStatus

import msgspec
from aiohttp import web

from ...bus.interface import Producer
from ...bus.messages.flush import Flush, publish_flushes
from ...errors import WindvaneError
from .routes import problem

_decode = msgspec.json.Decoder(list[Flush]).decode


def add_flush_route(app: web.Application, producer: Producer) -> None:
    """Adds the address; for the socket that only this installation can open."""

    async def post(request: web.Request) -> web.Response:
        try:
            flushes = _decode(await request.read())
        except msgspec.DecodeError as error:
            return problem(HTTPStatus.BAD_REQUEST, f"the body is not a list of flush messages: {error}")
        try:
            await publish_flushes(producer, flushes)
        except (WindvaneError, ValueError) as error:
            return problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        return web.Response(status=HTTPStatus.NO_CONTENT)

    app.router.add_post("/flushes", post)
