"""Program of a worker that does what the test says. `python -m` runs it for a spawned one."""

import json
import os
import pickle
import select
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


def play_service(mood: str, place: Place) -> NoReturn:
    """Do as a worker with a model does, but answer each connection with a word. The mood "sick" means to fail."""
    seat = place.take_up()
    if mood == "sick":
        seat.report_failure(DeviceUnavailable("There is no GPU."), is_mendable=False)
        os._exit(1)
    seat.say({"hello": os.getpid()})
    unread = b""
    while True:
        readable, _, _ = select.select([seat.control, seat.connections], [], [], 0.05)
        seat.slot.beat()
        if seat.connections in readable:
            _, descriptors, _, _ = socket.recv_fds(seat.connections, 1, 1)
            for descriptor in descriptors:
                with socket.socket(fileno=descriptor) as connection:
                    connection.sendall(str(place.number).encode())
            seat.slot.num_received += 1
        if seat.control in readable:
            received = seat.control.recv(65536)
            if not received:
                os._exit(0)
            *lines, unread = (unread + received).split(b"\n")
            for line in lines:
                _play(json.loads(line), seat)


def _play(command: dict[str, Any], seat: Seat) -> None:
    answer: dict[str, Any] = {}
    match command["do"]:
        case "open":
            answer = {"taken": {"engine": {"engine": "played"}, "warning": ""}}
        case "switch":
            seat.slot.report_ready(True)
        case "drain":
            answer = {"num_unanswered": 2}
    seat.say({"id": command["id"], **answer})
    if command["do"] == "end":
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
    argument, given_place = pickle.load(sys.stdin.buffer)
    (play_service if argument in ("well", "sick") else obey)(argument, given_place)
