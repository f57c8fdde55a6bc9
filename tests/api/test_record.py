"""Records of requests: ids that are taken or made, and stages in milliseconds."""

import subprocess
import sys
import uuid

import numpy as np
import pytest
from conftest import REPOSITORY
from support.fakes import FakeEngine, fake_version

from service.api.record import Prediction, RequestRecord, make_request_id, take_request_id
from service.inference.predictor import Classified, Timings
from service.ranking import Score


@pytest.mark.parametrize("request_id", [b"a", b"order:17/photo#2", b"x" * 128, b"!~"])
def test_a_short_printable_id_is_taken_over(request_id: bytes) -> None:
    assert take_request_id([(b"host", b"f"), (b"x-request-id", request_id)]) == request_id.decode()


@pytest.mark.parametrize("request_id", [b"", b"x" * 129, b"two words", b"tab\there", b"Bl\xfcte", b"nul\x00"])
def test_any_other_id_is_replaced(request_id: bytes) -> None:
    assert uuid.UUID(take_request_id([(b"x-request-id", request_id)])).version == 7


def test_ids_sort_by_time_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    for milliseconds in range(100):
        monkeypatch.setattr("time.time_ns", lambda now=milliseconds: now * 1_000_000)
        ids += [make_request_id(), make_request_id()]
    assert len(set(ids)) == 200
    assert [identifier[:13] for identifier in ids] == sorted(identifier[:13] for identifier in ids)
    assert {uuid.UUID(identifier).variant for identifier in ids} == {uuid.RFC_4122}


@pytest.mark.skipif(sys.platform != "linux", reason="several workers need Linux")
def test_forked_processes_make_different_ids() -> None:
    code = """
import os, sys
from service.api.record import make_request_id
make_request_id()
for _ in range(3):
    if not os.fork():
        sys.stdout.write("".join(f"{make_request_id()[14:]}\\n" for _ in range(100)))
        sys.stdout.flush()
        os._exit(0)
for _ in range(3):
    os.wait()
"""
    lines = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, check=True).stdout.split()
    assert len(lines) == len(set(lines)) == 300  # without the time, which may differ by chance


def test_stages_are_in_milliseconds() -> None:
    record = RequestRecord("an-id")
    assert record.durations_ms == {}
    version = fake_version(FakeEngine())
    classified = Classified(version, np.zeros(5, np.float32), Timings(0.0012345, 0.5, 2.0, 9.0))
    record.predictions.append(Prediction(classified, Score("daisy", 0.9)))
    assert record.durations_ms == {"decode": 1.23, "queue": 500.0, "infer": 2000.0}


def test_a_batch_has_its_longest_stages_and_its_numbers() -> None:
    record, version = RequestRecord("an-id", problems=["invalid-image"], num_images=3), fake_version(FakeEngine())
    assert record.server_timing() == {}
    for timings in (Timings(0.001, 0.5, 0.002, 9.0), Timings(0.004, 0.25, 0.001, 9.0)):
        record.predictions.append(Prediction(Classified(version, np.zeros(5, np.float32), timings), Score("daisy", 1)))
    assert record.server_timing() == {"Server-Timing": "decode;dur=4.0, queue;dur=500.0, infer;dur=2.0"}
    assert record.batch_fields == {"images": 3, "problems": 1}
    assert RequestRecord("an-id").batch_fields == {}
