"""Synchronous client. It runs the asynchronous one on an event loop in a thread of its own."""

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from service.client.answers import Prediction
from service.client.asynchronous import DEFAULT_TIMEOUT_S, DEFAULT_URL, AsyncClient
from service.client.images import ImageSource
from service.client.results import (
    DEFAULT_CONCURRENCY,
    FileResult,
    Outcome,
    check_concurrency,
    list_images,
    start_in_order,
)
from service.client.retries import Retries

_Result = TypeVar("_Result")


class Client:
    """Client of a running service. Threads may share it. It keeps its connections open between calls.

    The arguments and the errors are those of `AsyncClient`. A deadline holds to the millisecond, as on its event loop.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: Retries | None = None,
    ) -> None:
        self._client = AsyncClient(url, api_key=api_key, headers=headers, timeout_s=timeout_s, retries=retries)
        self._loop = asyncio.new_event_loop()
        self._is_over = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="flowers-client", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        """Return the class and the URL, without keys."""
        return repr(self._client).removeprefix("Async")

    def __enter__(self) -> Self:
        """Return the client. The end of the block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the client."""
        self.close()

    def close(self) -> None:
        """Close all connections and end the thread. Calls in flight are cancelled."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._is_over.set)
            self._thread.join()

    def predict(self, image: ImageSource, *, top_k: int | None = None, timeout_s: float | None = None) -> Prediction:
        """Score one image. Arguments and errors are those of `AsyncClient.predict`."""
        return _wait(self._start(self._client.predict(image, top_k=top_k, timeout_s=timeout_s)))

    def predict_many(
        self,
        images: Iterable[ImageSource],
        *,
        top_k: int | None = None,
        timeout_s: float | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
    ) -> Iterator[Outcome]:
        """Return an iterator of a prediction or a `ClientError` for each image, in their order.

        The caller's thread takes the images. Arguments and errors are those of `AsyncClient.predict_many`.
        """
        check_concurrency(concurrency)

        def start(image: ImageSource) -> Future[Outcome]:
            return self._start(self._client.try_predict(image, top_k=top_k, timeout_s=timeout_s))

        return _wait_for_each(images, start, concurrency)

    def predict_folder(
        self,
        folder: str | os.PathLike[str],
        *,
        top_k: int | None = None,
        timeout_s: float | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
    ) -> Iterator[FileResult]:
        """Return an iterator of one result for each image file in a folder and below, sorted by path.

        A file is read when its request begins. Arguments and errors are those of `AsyncClient.predict_folder`.
        """
        paths = list_images(Path(folder))
        outcomes = self.predict_many(paths, top_k=top_k, timeout_s=timeout_s, concurrency=concurrency)
        return map(FileResult, paths, outcomes)

    def _start(self, coroutine: Coroutine[Any, Any, _Result]) -> Future[_Result]:
        if not self._thread.is_alive():
            coroutine.close()
            raise RuntimeError("The client is closed. Make a new one.")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _run(self) -> None:
        """Run the event loop. Its end cancels the calls in flight."""
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        async with self._client:
            await self._is_over.wait()
            calls = asyncio.all_tasks() - {asyncio.current_task()}
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)


def _wait_for_each(
    images: Iterable[ImageSource], start: Callable[[ImageSource], Future[Outcome]], concurrency: int
) -> Iterator[Outcome]:
    with closing(start_in_order(images, start, concurrency)) as futures:
        for future in futures:
            yield _wait(future)


def _wait(future: Future[_Result]) -> _Result:
    """Wait for a result. An interruption, such as Ctrl-C, cancels the call."""
    try:
        return future.result()
    except CancelledError as error:
        raise RuntimeError("The client was closed during the call. Make a new one.") from error
    except BaseException:
        future.cancel()
        raise
