"""A store behind HTTP: a real server on this machine, with faults by the end of a path."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from service.remote_store.location import StoreUrl, parse_location
from service.store.versions import list_stored

Fault = Callable[["Handler", bytes], None]


@dataclass
class WebStoreServer:
    """Server of the folder `store`. `faults` answer paths that end with their key. `paths` lists what was asked."""

    store: Path
    faults: dict[str, Fault] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> StoreUrl:
        url = parse_location(f"http://127.0.0.1:{self.port}/models")
        assert isinstance(url, StoreUrl)
        return url

    def index(self, model: str = "flowers") -> None:
        """Write the index of what lies in the folder now."""
        rows = [
            {"model": model, "version": stored.version, "is_pinned": stored.pinned, "is_candidate": False}
            for stored in list_stored(self.store, model)
        ]
        (self.store / "index.json").write_text(json.dumps(rows))

    def asked(self, end: str) -> int:
        """How many requests were for paths with this end."""
        return sum(path.endswith(end) for path in self.paths)


class Handler(BaseHTTPRequestHandler):
    """Answers from the folder, or by a fault."""

    def __init__(self, server_: WebStoreServer, *arguments: object) -> None:
        self.web = server_
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self.web.paths.append(self.path)
        self.web.headers.append(dict(self.headers))
        file = self.web.store / self.path.removeprefix("/models/")
        content = file.read_bytes() if file.is_file() else b""
        for end, fault in self.web.faults.items():
            if self.path.endswith(end):
                fault(self, content)
                return
        self.answer(200 if file.is_file() else 404, content)

    def answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Write nothing."""


def corrupt(handler: Handler, content: bytes) -> None:
    """The file with one bit changed."""
    handler.answer(200, bytes([content[0] ^ 1]) + content[1:])


def cut(handler: Handler, content: bytes) -> None:
    """Half of the file, and the end of the connection."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2])
    handler.wfile.flush()
    handler.connection.close()


def fail(status: int, **headers: str) -> Fault:
    """A status without content."""
    return lambda handler, _: handler.answer(status, b"", **headers)


def wait_for(event: threading.Event) -> Fault:
    """The file after the event, as of a server that says nothing for long."""

    def answer(handler: Handler, content: bytes) -> None:
        event.wait(30)
        handler.answer(200, content)

    return answer


def trickle(handler: Handler, content: bytes) -> None:
    """The file without an end, byte by byte."""
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(content[:1])
            time.sleep(0.01)
    except OSError:
        handler.close_connection = True


@contextmanager
def served_store(store: Path) -> Iterator[WebStoreServer]:
    """The folder behind HTTP, with an index of `flowers`. The server ends with the block."""
    web = WebStoreServer(store)
    store.mkdir(exist_ok=True)
    web.index()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, web))
    server.daemon_threads = True
    web.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
