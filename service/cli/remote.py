"""Client of a running service. It sends files to POST /predict, and makes rows of the answers."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from service.bench.connection import parse_target
from service.errors import InvalidParameter, ServiceError
from service.files import UnfitFile, read_regular
from service.ranking import Score

if TYPE_CHECKING:
    import httpx

HeaderLines = Annotated[tuple[str, ...], Parameter(name="--header", negative="")]
"""Lines such as "X-API-Key: ...", one per --header."""

PREDICT = "/predict"  # path of the service that scores one image
_NUM_CONNECTIONS = 4
_TIMEOUT_S = 60.0
_MAX_FILE_BYTES = 1024**3  # the service has its own limit


@dataclass(frozen=True)
class Row:
    """Scores of one file, best first, or its error. `confident` is None with an error.

    `reason` tells why an answer is not confident. An older service does not tell it.
    """

    path: Path
    scores: tuple[Score, ...] = ()
    confident: bool | None = None
    reason: str | None = None
    error: str | None = None


def check_headers(lines: Sequence[str]) -> None:
    """Refuse lines that HTTP cannot carry. Raises `InvalidParameter` without the line, which may hold a key."""
    for line in lines:
        name, colon, _ = line.partition(":")
        if not colon or not name.strip() or not line.isprintable() or not line.isascii():
            raise InvalidParameter('--header is malformed. Give it as "Name: value", in printable ASCII.')


def predict_remotely(
    files: Sequence[Path], top_k: int | None, url: str, header: Sequence[str] = (), *, timeout_s: float = _TIMEOUT_S
) -> Iterator[Row]:
    """Yield the service's answers in the order of the files. Some files are sent in parallel.

    `top_k` is None for all classes. `header` has lines that `check_headers` accepts. After `timeout_s` seconds of
    silence the row has an error. Raises `InvalidParameter` for another `url`, or `ServiceError` if nothing answers.
    """
    import httpx  # here, because only --url needs it

    from service.http_client import Way

    parameters = {} if top_k is None else {"top_k": top_k}
    target = parse_target(url, PREDICT)
    try:
        address = httpx.URL(url).copy_with(path=target.path, params=parameters, fragment=None)
    except httpx.InvalidURL as error:
        raise InvalidParameter(f"{url!r} is no address of a service ({error}). Check --url.") from error

    fields = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in header)]
    way = Way(address)
    executor = ThreadPoolExecutor(_NUM_CONNECTIONS)
    with way.open_client(headers=fields, timeout_s=timeout_s) as client:
        try:
            yield from executor.map(lambda path: _ask(client, address, path), files)
        except (httpx.ConnectError, httpx.ProxyError) as error:
            if variable := way.proxy_variable:
                raise ServiceError(
                    f"{url} cannot be reached through the proxy of {variable} ({error}). Check {variable}, or add "
                    f"{address.host} to NO_PROXY."
                ) from error
            raise ServiceError(
                f"No service answers at {url}. Start one with `flowers serve`, or check --url."
            ) from error
        finally:
            executor.shutdown(cancel_futures=True)


def _ask(client: "httpx.Client", address: "httpx.URL", path: Path) -> Row:
    import httpx

    try:
        image = read_regular(path, _MAX_FILE_BYTES)
    except UnfitFile as error:
        return Row(path, error=f"It is no image, as {error.strerror}. Give image files.")
    except OSError as error:
        return Row(path, error=f"It cannot be read ({error.strerror}). Check the path and its rights.")
    try:
        response = client.post(address, files={"file": ("image", image)})  # its name stays here
        answer = response.json()
        if not response.is_success:
            return Row(path, error=str(answer["detail"]))
        scores = tuple(Score(str(item["label"]), float(item["probability"])) for item in answer["predictions"])
        reason = answer.get("reason")
        return Row(path, scores, bool(answer["confident"]), None if reason is None else str(reason))
    except (httpx.ConnectError, httpx.ProxyError):
        raise
    except httpx.HTTPError as error:
        return Row(path, error=f"The service gave no answer ({type(error).__name__}). Try again.")
    except (ValueError, KeyError, TypeError):
        return Row(path, error=f"The answer ({response.status_code}) is not of this service. Check --url.")
