"""Asynchronous client, on httpx and asyncio."""

import asyncio
import math
import os
import re
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing, closing
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlunsplit

import httpx

from service.client.answers import Answer, Prediction
from service.client.images import ImageSource, encode_image
from service.client.results import (
    DEFAULT_CONCURRENCY,
    FileResult,
    Outcome,
    check_concurrency,
    list_images,
    start_in_order,
)
from service.client.retries import Call, Retries
from service.errors import (
    AnswerLost,
    ClientError,
    ForeignAnswer,
    InvalidParameter,
    RefusedByService,
    ServiceUnreachable,
)
from service.http_client import PREDICT, Way, parse_service_url

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT_S = 60.0

_CONNECT_TIMEOUT_S = 5.0
_MAX_ANSWER_BYTES = 4 * 1024 * 1024
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NOT_CONNECTED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)


class AsyncClient:
    """Client of a running service, for asyncio. It keeps its connections open between calls.

    A call is repeated when its answer is lost or the service is busy. That is harmless, as a prediction changes
    nothing. Redirects are not followed.

    Args:
        url: Address of the service, such as http://localhost:8000.
        api_key: API key. It goes into a header. None means that the service is open.
        headers: More headers for each request.
        timeout_s: Deadline of a call in seconds, retries included.
        retries: Rule of retries.

    Raises:
        InvalidParameter: The URL is no address of a service, or a header cannot be sent.
        SettingsError: The environment names a proxy or certificates that cannot be used.
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
        self._url, self._auth = _read_url(url)
        self._retries = retries or Retries()
        self._timeout_s = timeout_s
        fields = [*(headers.items() if isinstance(headers, Mapping) else headers)]
        if api_key is not None:
            fields.append(("X-API-Key", api_key))
        fields = [(name, value.strip()) for name, value in fields]
        _check_headers(fields)
        self._way = Way(self._url)
        # An encoded answer could grow without bound.
        fields = [("Accept-Encoding", "identity"), *fields]
        self._http = self._way.open_async_client(connect_timeout_s=_CONNECT_TIMEOUT_S, headers=fields)
        self._has_answered = False

    def __repr__(self) -> str:
        """Return the class and the URL, without keys."""
        return f"{type(self).__name__}({str(self._url)!r})"

    async def __aenter__(self) -> Self:
        """Return the client. The end of the block closes it."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the client."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def predict(
        self, image: ImageSource, *, top_k: int | None = None, timeout_s: float | None = None
    ) -> Prediction:
        """Score one image.

        Args:
            image: Path of a file, bytes of a file, Pillow image, or array of uint8, shape (height, width, 3), RGB.
            top_k: Number of scores. None means all classes.
            timeout_s: Deadline in seconds, retries included. None means that of the client.

        Raises:
            UnreadableImage: The image cannot be read or encoded. Nothing was sent.
            RefusedByService: The service answered with a problem. `problem` holds it.
            ServiceUnreachable: No connection to the service opened.
            AnswerLost: The connection broke before the answer was whole, in every try.
            ClientTimeout: The deadline passed.
            ForeignAnswer: The answer is not of this service.
            InvalidParameter: `timeout_s` is out of range.
        """
        call = Call(self._retries, self._timeout_s if timeout_s is None else timeout_s)
        try:
            async with asyncio.timeout(call.left_s()):
                data = await asyncio.to_thread(encode_image, image)
                return await self._try(call, data, top_k)
        except TimeoutError as error:
            raise call.timeout() from error

    async def predict_many(
        self,
        images: Iterable[ImageSource],
        *,
        top_k: int | None = None,
        timeout_s: float | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
    ) -> AsyncGenerator[Outcome, None]:
        """Yield a prediction or a `ClientError` for each image, in their order.

        Args:
            images: Images as `predict` takes them. One is taken when its request begins.
            top_k, timeout_s: As of `predict`, for each image.
            concurrency: Number of simultaneous requests, 1 to 1,024.

        Raises:
            InvalidParameter: `concurrency` or `timeout_s` is out of range.
        """
        check_concurrency(concurrency)
        tasks: set[asyncio.Task[Outcome]] = set()

        def start(image: ImageSource) -> asyncio.Task[Outcome]:
            task = asyncio.create_task(self.try_predict(image, top_k=top_k, timeout_s=timeout_s))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            return task

        try:
            with closing(start_in_order(images, start, concurrency)) as started:
                for task in started:
                    yield await task
        finally:
            await asyncio.gather(*tasks, return_exceptions=True)  # those that were cancelled

    async def predict_folder(
        self,
        folder: str | os.PathLike[str],
        *,
        top_k: int | None = None,
        timeout_s: float | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
    ) -> AsyncGenerator[FileResult, None]:
        """Yield one result for each image file in a folder and below, sorted by path.

        A file is read when its request begins. The parameters are those of `predict_many`.

        Raises:
            InvalidParameter: It is no folder, or a parameter is out of range.
        """
        paths = await asyncio.to_thread(list_images, Path(folder))
        outcomes = self.predict_many(paths, top_k=top_k, timeout_s=timeout_s, concurrency=concurrency)
        async with aclosing(outcomes) as answered:
            index = 0
            async for outcome in answered:
                yield FileResult(paths[index], outcome)
                index += 1

    async def try_predict(
        self, image: ImageSource, *, top_k: int | None = None, timeout_s: float | None = None
    ) -> Outcome:
        """Score one image as `predict` does, and return a `ClientError` instead of raising it."""
        try:
            return await self.predict(image, top_k=top_k, timeout_s=timeout_s)
        except ClientError as error:
            return error

    async def _try(self, call: Call, data: bytes, top_k: int | None) -> Prediction:
        """Send the image until an answer is final, or no retry is left."""
        while True:
            try:
                answer = await self._ask(data, top_k, call.left_s())
            except _NOT_CONNECTED as error:
                # A service that answered before restarts, perhaps. Nothing was sent, so no retry is counted.
                await call.pause(self._describe(error), is_counted=not self._has_answered)
                continue
            except httpx.TransportError as error:
                await call.pause(self._describe(error))
                continue
            self._has_answered = True
            try:
                return answer.read_prediction()
            except (RefusedByService, ForeignAnswer) as error:
                if not answer.is_worth_retrying(error):
                    raise
                await call.pause(error, answer.retry_after_s())

    async def _ask(self, data: bytes, top_k: int | None, left_s: float) -> Answer:
        body = bytearray()
        async with self._http.stream(
            "POST",
            self._url,
            params={} if top_k is None else {"top_k": top_k},
            files={"file": ("image", data)},  # the name of a file stays here
            headers={"X-Request-Timeout-Ms": str(math.ceil(left_s * 1000))},
            auth=self._auth,
        ) as response:
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > _MAX_ANSWER_BYTES:
                    raise ForeignAnswer(
                        f"The answer ({response.status_code}) has more than {_MAX_ANSWER_BYTES:,} bytes, so it is not "
                        "of this service. Check the URL."
                    )
            return Answer(response.status_code, bytes(body), response.headers.get("Retry-After"))

    def _describe(self, error: httpx.TransportError) -> ClientError:
        """Return our error for one of httpx."""
        described: ClientError
        if not isinstance(error, _NOT_CONNECTED):
            described = AnswerLost(
                f"The service gave no answer ({type(error).__name__}). The connection broke. Send the image again."
            )
        elif variable := self._way.proxy_variable:
            described = ServiceUnreachable(
                f"{self._url} cannot be reached through the proxy of {variable} ({error}). Check {variable}, or add "
                f"{self._url.host} to NO_PROXY."
            )
        else:
            described = ServiceUnreachable(
                f"No service answers at {self._url}. Start one with `flowers serve`, or check the URL."
            )
        described.__cause__ = error
        return described


def _read_url(url: str) -> tuple[httpx.URL, tuple[str, str] | None]:
    """Return the URL of a prediction, and the name and password in it, which never appear in a message."""
    try:
        address = httpx.URL(urlunsplit(parse_service_url(url, PREDICT)))
    except httpx.InvalidURL as error:
        raise InvalidParameter(f"{url!r} is no address of a service ({error}). Check the URL.") from error
    auth = (address.username, address.password) if address.userinfo else None
    return address.copy_with(userinfo=b""), auth


def _check_headers(fields: Sequence[tuple[str, str]]) -> None:
    """Refuse headers that HTTP cannot carry. Raises `InvalidParameter` without the value, which may be a key."""
    for name, value in fields:
        if not _HEADER_NAME.fullmatch(name) or not value.isascii() or not value.isprintable():
            raise InvalidParameter("A header or the API key is malformed. Give a name and a value in printable ASCII.")
