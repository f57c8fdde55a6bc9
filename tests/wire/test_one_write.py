"""What is written together is sent together."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.fakes import Loader
from support.running import running
from support.wires import GET, on_the_wire

from service.wire import head_guard
from service.wire.one_write import OneWrite

pytestmark = pytest.mark.anyio


class Recording:
    """A transport that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.told.append(data)

    def close(self) -> None:
        self.told.append("close")

    def is_closing(self) -> bool:
        return "close" in self.told


async def test_what_is_written_together_is_sent_together_and_before_the_close() -> None:
    transport = Recording()
    one_write: Any = OneWrite(transport, asyncio.get_running_loop())  # type: ignore[arg-type]
    one_write.write(b"head ")
    one_write.write(b"body")
    assert transport.told == []
    await asyncio.sleep(0)
    one_write.write(b"head ")
    one_write.write(large := bytes(100_000))
    assert transport.told == [b"head body", b"head " + large]
    one_write.write(b"second ")
    one_write.write(b"answer")
    one_write.close()
    one_write.write(b"too late")
    await asyncio.sleep(0)
    assert transport.told[2:] == [b"second answer", "close"]
    assert one_write.is_closing()


async def test_head_and_body_of_an_answer_are_sent_in_one_piece(
    store: Path, loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []

    class Watched(OneWrite):
        def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
            class Counting:
                def write(self, data: bytes) -> None:
                    sent.append(data)
                    transport.write(data)

                def __getattr__(self, name: str) -> Any:
                    return getattr(transport, name)

            super().__init__(Counting(), loop)  # type: ignore[arg-type]

    monkeypatch.setattr(head_guard, "OneWrite", Watched)
    async with running(store, loader) as service, on_the_wire(service) as wire:
        status, _, body = await wire.send(GET + b"\r\n" + GET + b"Connection: close\r\n\r\n")
    assert (status, body.count(b"alive"), len(sent)) == (200, 2, 2)
