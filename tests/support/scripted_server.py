"""An HTTP server that does as a test tells it: for clients, which must bear all that real ones do."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Script = Callable[[int], Awaitable[bytes | None]]
"""The number of a request, from 0 -> what is written back; None hangs up, and so does `Connection: close` after it."""


@dataclass
class ScriptedServer:
    """Where it listens and what it saw."""

    port: int = 0
    num_connections: int = 0
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    most_at_once: int = 0


def http(status: int = 200, body: bytes = b'{"label": "roses"}', media_type: str = "application/json") -> bytes:
    """A whole answer."""
    head = f"HTTP/1.1 {status} Said\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@contextmanager
def scripted_server(script: Script, port: int = 0) -> Iterator[ScriptedServer]:
    """On a port of 127.0.0.1, or a free one, in a thread of its own."""
    seen = ScriptedServer()
    listening = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    num_now = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal num_now
        seen.num_connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = head.partition("content-length:")[2].split()  # CONNECT has none
                body = await reader.readexactly(int(length[0]) if length else 0)
                seen.heads.append(head)
                seen.bodies.append(body)
                num_now += 1
                seen.most_at_once = max(seen.most_at_once, num_now)
                answer = await script(len(seen.bodies) - 1)
                num_now -= 1
                if answer is None:
                    return
                writer.write(answer)
                if b"Connection: close" in answer:
                    await writer.drain()
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    async def listen() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", port)
        seen.port = server.sockets[0].getsockname()[1]
        loops.append(asyncio.get_running_loop())
        listening.set()
        await stopping.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)  # they close their connections
        await asyncio.sleep(0)  # and the loop closes the sockets

    stopping = asyncio.Event()
    thread = threading.Thread(target=asyncio.run, args=(listen(),))
    thread.start()
    listening.wait()
    try:
        yield seen
    finally:
        loops[0].call_soon_threadsafe(stopping.set)
        thread.join()
