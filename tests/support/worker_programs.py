"""Programs of workers, which a forkserver can import."""

import json
import os
import signal
import socket
from typing import Any

from service.errors import DeviceUnavailable, EngineFailed
from service.workers.worker import Place


def obey(greeting: str, place: Place) -> None:
    """A worker that does one thing at a time. It answers with `greeting`, unless it is told not to."""
    place.take_up()
    place.say({"hello": os.getpid()})
    with place.control.makefile() as commands:
        for line in commands:
            command = json.loads(line)
            answer = _do(command, place)
            if answer is not None:
                place.say({"id": command["id"], "greeting": greeting, **answer})


def end_at_once(exit_code: int, place: Place) -> None:
    """A worker that never says hello."""
    os._exit(exit_code)


def _do(command: dict[str, Any], place: Place) -> dict[str, Any] | None:
    match command["do"]:
        case "echo":
            return {"text": command["text"], "pid": os.getpid()}
        case "take a connection":
            _, descriptors, _, _ = socket.recv_fds(place.connections, 1, 1)
            with socket.socket(fileno=descriptors[0]) as connection:
                connection.sendall(b"served")
        case "log":
            os.write(2, command["text"].encode())
        case "fail":
            error = EngineFailed("It hangs.") if command["is_mendable"] else DeviceUnavailable("There is no GPU.")
            place.report_failure(error, is_mendable=command["is_mendable"])
        case "exit":
            os._exit(command["exit_code"])
        case "break off":
            place.control.sendall(b'{"id": ')
            os.kill(os.getpid(), signal.SIGKILL)
        case "say nothing":
            return None
    return {}
