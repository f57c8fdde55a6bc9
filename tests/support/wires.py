"""The service behind a real socket, with uvicorn and the limits of the wire, spoken to in raw bytes."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import cast

import uvicorn
from support.running import Running

from service.api.refusals import Refusals
from service.wire.clocks import watch_clocks
from service.wire.head_guard import HeadGuard
from service.wire.server import make_config

GET = b"GET /livez HTTP/1.1\r\nHost: flowers\r\n"


class Wire:
    """A service behind a real socket; `send` opens a connection and reads until it is closed."""

    def __init__(self, port: int, service: Running, server: uvicorn.Server) -> None:
        self.port = port
        self.service = service
        self.server = server

    async def send(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the only answer; status 0 where there is none."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        answer = await reader.read()
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return int(status.split()[1]) if status else 0, headers, body

    async def refused(self, data: bytes, name: str, status: int, detail: str = "") -> None:
        """It is this problem, whole and as every other one, and it is counted; `detail` is a part of its own."""
        answered, headers, body = await self.send(data)
        problem = json.loads(body)
        assert (answered, problem["type"], problem["status"]) == (status, f"/problems/{name}", status)
        assert detail in problem["detail"]
        assert headers["content-type"] == "application/problem+json"
        assert headers["x-request-id"] == problem["request_id"]
        assert (headers["connection"], headers["x-content-type-options"]) == ("close", "nosniff")
        assert "server" not in headers
        text = (await self.service.client.get("/metrics")).text
        assert f'flowers_requests_total{{method="other",route="unmatched",status="{status}"}}' in text
        assert f'flowers_problems_total{{type="{name}"}} 0.0' not in text


@asynccontextmanager
async def on_the_wire(service: Running) -> AsyncIterator[Wire]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = make_config(service.app, Refusals(service.service))
    config.lifespan = "off"  # it has begun already
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup([listener])
    connections = cast(set[HeadGuard], server.server_state.connections)
    watching = asyncio.create_task(watch_clocks(connections))
    yield Wire(listener.getsockname()[1], service, server)
    watching.cancel()
    for listening in server.servers:
        listening.close()
    for connection in tuple(connections):
        connection.transport.abort()
    await asyncio.gather(*server.server_state.tasks, return_exceptions=True)


def predict(*headers: bytes, body: bytes = b"") -> bytes:
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join((b"POST /predict?top_k=2 HTTP/1.1", b"Host: flowers", length, *headers, b"", body))


@contextmanager
def full_queue(wire: Wire, *, room: int = 0) -> Iterator[None]:
    """A queue that has room for no more than `room` images."""
    admission = wire.service.service.admission
    with ExitStack() as waiting:
        for _ in range(admission.max_waiting - room):
            waiting.enter_context(admission.image())
        yield


async def read_answer(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]]:
    """The head in lower case, and the JSON body."""
    async with asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        return head, json.loads(await reader.readexactly(length))
