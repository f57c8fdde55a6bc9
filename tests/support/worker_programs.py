"""Program of a worker that does what the test says. `python -m` runs it for a spawned one."""

import json
import os
import pickle
import signal
import socket
import sys
from typing import Any, NoReturn

from service.errors import DeviceUnavailable, EngineFailed
from service.workers.worker import Place, Seat


def obey(greeting: str, place: Place) -> NoReturn:
    """Do one thing at a time, and answer with `greeting`. The greeting "end" means to end before any hello."""
    if greeting == "end":
        os._exit(3)
    seat = place.take_up()
    seat.say({"hello": os.getpid()})
    with seat.control.makefile() as commands:
        for line in commands:
            command = json.loads(line)
            answer = _do(command, seat)
            if answer is not None:
                seat.say({"id": command["id"], "greeting": greeting, **answer})
    os._exit(0)


def _do(command: dict[str, Any], seat: Seat) -> dict[str, Any] | None:
    match command["do"]:
        case "echo":
            return {"text": command["text"], "pid": os.getpid()}
        case "take a connection":
            _, descriptors, _, _ = socket.recv_fds(seat.connections, 1, 1)
            with socket.socket(fileno=descriptors[0]) as connection:
                connection.sendall(b"served")
        case "log":
            os.write(2, command["text"].encode())
        case "fail":
            error = EngineFailed("It hangs.") if command["is_mendable"] else DeviceUnavailable("There is no GPU.")
            seat.report_failure(error, is_mendable=command["is_mendable"])
        case "exit":
            os._exit(command["exit_code"])
        case "break off":
            seat.control.sendall(b'{"id": ')
            os.kill(os.getpid(), signal.SIGKILL)
        case "say nothing":
            return None
    return {}


if __name__ == "__main__":
    obey(*pickle.load(sys.stdin.buffer))
