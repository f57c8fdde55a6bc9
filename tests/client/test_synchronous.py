import asyncio
import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from support.drawing import draw_photograph, encode
from support.predictions import prediction, problem
from support.processes import wait_until
from support.scripted_server import scripted_server

from service.client import Client, FileResult, Prediction, Retries
from service.client.images import ImageSource
from service.errors import AnswerLost, ClientTimeout, InvalidParameter, RefusedByService, UnreadableImage

PNG = encode(draw_photograph(2, seed=9), "PNG")


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


async def answer(_: int) -> bytes:
    return prediction()


def test_a_prediction_is_what_the_service_says(url: str, client: Client) -> None:
    said = httpx.post(f"{url}/predict", content=PNG).json()
    answered = client.predict(PNG)
    assert [vars(score) for score in answered.predictions] == said["predictions"]
    assert (answered.model, answered.version, answered.label) == ("flowers", said["model"]["version"], said["label"])
    assert (answered.probability, answered.confident) == (said["probability"], said["confident"])
    assert answered.reason == said.get("reason")
    assert [score.label for score in client.predict(PNG, top_k=1).predictions] == [said["label"]]


@pytest.mark.parametrize("kind", ["path", "name", "bytes", "pillow", "array"])
def test_every_form_of_an_image_scores_the_same(client: Client, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(PNG)
    pillow = Image.open(io.BytesIO(PNG))
    forms: dict[str, ImageSource] = {
        "path": path, "name": str(path), "bytes": PNG, "pillow": pillow, "array": np.asarray(pillow)
    }  # fmt: skip
    assert client.predict(forms[kind]).predictions == client.predict(PNG).predictions


def test_a_folder_gives_one_result_for_each_image(client: Client, tmp_path: Path) -> None:
    for name in ("c.png", "a.png", "below/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(PNG)
    (tmp_path / "broken.jpg").write_text("no image")
    (tmp_path / "notes.txt").write_text("no image")
    results = list(client.predict_folder(tmp_path, top_k=1))
    assert [path.name for path, _ in results] == ["a.png", "b.png", "broken.jpg", "c.png"]
    kinds = [type(result.outcome) for result in results]
    assert kinds == [Prediction, Prediction, RefusedByService, Prediction]
    refused = results[2].outcome
    assert isinstance(refused, RefusedByService)
    assert refused.problem is not None
    assert (refused.problem.type, refused.problem.status) == ("/problems/unsupported-image-format", 415)
    assert isinstance(results[0], FileResult)


def test_a_file_that_went_spoils_only_its_own_place(client: Client, tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(PNG)
    results = client.predict_folder(tmp_path, concurrency=1)
    first = next(results)
    (tmp_path / "3.png").unlink()
    kinds = [type(outcome) for _, outcome in (first, *results)]
    assert kinds == [Prediction] * 3 + [UnreadableImage, Prediction]


def test_threads_share_a_client_and_its_connections() -> None:
    with scripted_server(answer) as server, Client(f"http://127.0.0.1:{server.port}") as client:
        client.predict(PNG)
        with ThreadPoolExecutor(4) as executor:
            answers = list(executor.map(client.predict, [PNG] * 20))
    assert {one.label for one in answers} == {"roses"}
    assert len(server.bodies) == 21
    assert server.num_connections <= 4


def test_the_client_works_under_a_running_event_loop(client: Client) -> None:
    """As in a notebook."""

    async def ask() -> str:
        return client.predict(PNG).label

    assert asyncio.run(ask()) == client.predict(PNG).label


def test_images_are_taken_by_the_thread_of_the_caller() -> None:
    threads: set[threading.Thread] = set()

    def images() -> Iterator[bytes]:
        for _ in range(3):
            threads.add(threading.current_thread())
            yield PNG

    with scripted_server(answer) as server, Client(f"http://127.0.0.1:{server.port}") as client:
        assert len(list(client.predict_many(images(), concurrency=2))) == 3
    assert threads == {threading.current_thread()}


def test_a_deadline_ends_a_call_and_the_next_works() -> None:
    async def script(number: int) -> bytes | None:
        if number == 0:
            await asyncio.sleep(30)
        return prediction()

    with scripted_server(script) as server, Client(f"http://127.0.0.1:{server.port}", timeout_s=30) as client:
        with pytest.raises(ClientTimeout):
            client.predict(PNG, timeout_s=0.1)
        assert client.predict(PNG).label == "roses"


def test_closing_ends_the_thread_and_the_calls() -> None:
    before = threading.active_count()

    async def script(_: int) -> bytes | None:
        await asyncio.sleep(30)
        return None

    with scripted_server(script) as server:
        with Client(f"http://127.0.0.1:{server.port}") as client:
            outcomes = client.predict_many([PNG] * 10)
            executor = ThreadPoolExecutor(1)
            waiting = executor.submit(next, outcomes)
            wait_until(lambda: len(server.bodies) == 8)
        with pytest.raises(RuntimeError, match="The client was closed"):
            waiting.result(timeout=30)
        executor.shutdown()
    assert threading.active_count() == before
    client.close()
    with pytest.raises(RuntimeError, match="The client is closed"):
        client.predict(PNG)


def test_wrong_arguments_are_refused_at_once(client: Client) -> None:
    with pytest.raises(InvalidParameter, match="concurrency"):
        client.predict_many([], concurrency=0)
    with pytest.raises(InvalidParameter, match="no folder"):
        client.predict_folder("/dev/null")
    with pytest.raises(InvalidParameter, match="timeout_s"):
        client.predict(PNG, timeout_s=0)


def test_the_representation_has_no_key() -> None:
    with Client("http://user:garden@localhost:8000", api_key="garden") as client:
        assert repr(client) == "Client('http://localhost:8000/predict')"


def test_errors_cross_the_thread_with_their_problem() -> None:
    async def script(_: int) -> bytes:
        return problem(401, "unauthorized")

    with scripted_server(script) as server, Client(f"http://127.0.0.1:{server.port}") as client:
        outcome = client.predict_many([PNG])
        with pytest.raises(RefusedByService, match="It is unauthorized") as caught:
            client.predict(PNG)
        assert [repr(one) for one in outcome] == [repr(caught.value)]
    assert caught.value.problem is not None
    assert caught.value.problem.status == 401


def test_a_rule_without_retries_is_kept() -> None:
    async def script(_: int) -> None:
        return None

    with scripted_server(script) as server:
        url, retries = f"http://127.0.0.1:{server.port}", Retries(max_retries=0)
        with Client(url, retries=retries) as client, pytest.raises(AnswerLost):
            client.predict(PNG)
    assert len(server.bodies) == 1
