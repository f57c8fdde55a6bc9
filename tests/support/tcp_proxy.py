"""A proxy of TCP connections that cuts and slows what the server sends."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class TcpProxy:
    """Proxy in front of a port of this machine.

    Attributes:
        cut_after: Bytes of answers after which a connection ends, or None.
        bytes_per_s: Rate of an answer, or None.
        is_down: Whether new connections end at once.
        sent: What the clients have sent so far.
    """

    def __init__(self, server_port: int) -> None:
        self.cut_after: int | None = None
        self.bytes_per_s: int | None = None
        self.is_down = False
        self.sent = bytearray()
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []

    def run(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.is_down:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._sockets += [client, server]
                threading.Thread(target=self._carry_requests, args=(client, server), daemon=True).start()
                threading.Thread(target=self._carry_answers, args=(server, client), daemon=True).start()

    def drop_all(self) -> None:
        """End every connection."""
        for end in self._sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._sockets.clear()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_all()

    def _carry_requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while piece := client.recv(65536):
                self.sent += piece
                server.sendall(piece)
            server.shutdown(socket.SHUT_WR)

    def _carry_answers(self, server: socket.socket, client: socket.socket) -> None:
        num_bytes = 0
        with suppress(OSError):
            while piece := server.recv(65536):
                num_bytes += len(piece)
                if self.cut_after is not None and num_bytes > self.cut_after:
                    break
                if self.bytes_per_s is not None:
                    time.sleep(len(piece) / self.bytes_per_s)
                client.sendall(piece)
            client.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxied(server_port: int) -> Iterator[TcpProxy]:
    """A proxy that ends with the block."""
    proxy = TcpProxy(server_port)
    thread = threading.Thread(target=proxy.run)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()
