"""Photographs to ask about, with the SavedModel's own answers, which are computed before any server runs."""

import io
import json
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from benchmarks.serving.servers import Model, Server
from service.bench.connection import Response, Target
from service.bench.generator import Question
from service.imaging.decode import decode_image
from service.imaging.resize import resize
from service.store.layout import METADATA_FILE
from service.store.metadata import read_metadata
from service.store.versions import resolve_version

WRONG, UNREADABLE = "wrong answer", "unreadable answer"
LARGE = (4000, 3000)  # 12 megapixels
_TOLERANCE = 0.1  # of the best class's probability: int8 may differ by 0.04, DCT-scaled decoding by as much again
_LEAD = 0.25  # over the second class: less could be lost to rounding, and would accuse an honest server
_PROFILE_MARKER = b"ICC_PROFILE\0"
_GRAIN = 16  # grey levels; without a sensor's grain the enlarged photographs would be small files


@dataclass(frozen=True)
class Photograph:
    """JPEG with its expected answer."""

    data: bytes
    label: str
    probability: float

    def is_like(self, other: "Photograph") -> bool:
        """Return whether a server that is right about `other` is right about this one. Peers apply no profiles."""
        return self.label == other.label and abs(self.probability - other.probability) <= _TOLERANCE / 2


def read_small(folder: Path, count: int) -> list[bytes]:
    """Read `count` JPEGs of a folder of class folders, evenly picked."""
    files = sorted(folder.glob("*/*.jp*g"))
    if len(files) < count:
        raise SystemExit(f"{folder} has {len(files)} JPEGs in class folders, {count} are needed")
    return [files[index * len(files) // count].read_bytes() for index in range(count)]


def read_profiled(folder: Path, count: int) -> list[bytes]:
    """Read `count` JPEGs with a colour profile, evenly picked, or none if the folder has fewer."""
    profiled = [data for data in map(Path.read_bytes, sorted(folder.glob("*/*.jp*g"))) if without_profile(data) != data]
    return [profiled[index * len(profiled) // count] for index in range(count)] if len(profiled) >= count else []


def with_profile(jpeg: bytes, profile: bytes) -> bytes:
    """Return the JPEG with a colour profile of less than 64 KiB put in."""
    segment = _PROFILE_MARKER + b"\1\1" + profile
    return jpeg[:2] + b"\xff\xe2" + (2 + len(segment)).to_bytes(2) + segment + jpeg[2:]


def without_profile(jpeg: bytes) -> bytes:
    """Return the JPEG without the segments of its colour profile."""
    position, kept = 2, [jpeg[:2]]
    while position < len(jpeg) and jpeg[position : position + 2] != b"\xff\xda":
        length = 2 + int.from_bytes(jpeg[position + 2 : position + 4])
        segment = jpeg[position : position + length]
        if not segment.startswith(_PROFILE_MARKER, 4):
            kept.append(segment)
        position += length
    return b"".join((*kept, jpeg[position:]))


def enlarge(photograph: bytes) -> bytes:
    """Return the photograph with 12 megapixels and the grain of a camera."""
    with Image.open(io.BytesIO(photograph)) as image:
        large = np.asarray(ImageOps.fit(image.convert("RGB"), LARGE, Image.Resampling.BICUBIC), np.int16)
    grain = np.random.default_rng(0).integers(-_GRAIN, _GRAIN + 1, large.shape[:2], np.int16)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(large + grain[..., None], 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def with_answers(photographs: Sequence[bytes], model: Model, count: int) -> list[Photograph]:
    """Return up to `count` photographs whose best class leads clearly, with as many labels as there are.

    Raises:
        SystemExit: All of them have one label. A server that always says it would never be wrong.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:  # TensorFlow stays out of ours
        rows = process.submit(_score, model.folder, photographs).result()
    by_label: dict[str, list[Photograph]] = {}
    for data, row in zip(photographs, rows, strict=True):
        second, best = sorted(row)[-2:]
        if best - second >= _LEAD:
            label = model.class_names[row.index(best)]
            by_label.setdefault(label, []).append(Photograph(data, label, best))
    if len(by_label) < 2:
        raise SystemExit(f"{model.name} gives all photographs one label ({set(by_label)}): its answers check nothing")
    taken: list[Photograph] = []
    while len(taken) < count and any(by_label.values()):
        taken += [candidates.pop() for candidates in by_label.values() if candidates]
    return taken[:count]


def _score(folder: Path, photographs: Sequence[bytes]) -> list[list[float]]:
    from service.engines.open_version import load_engine
    from service.engines.wish import EngineWish
    from service.store.verify import verify_version

    engine = load_engine(verify_version(folder), EngineWish("savedmodel", "cpu"))
    squares = [resize(decode_image(photograph)) for photograph in photographs]
    rows: list[list[float]] = engine.run(np.stack(squares)).probabilities.tolist()
    return rows


def find_model(store: Path, name: str) -> Model:
    """Return the version that our service would serve."""
    found = resolve_version(store, name)
    metadata = read_metadata(found.folder / METADATA_FILE)
    return Model(name, store.resolve(), found.version, tuple(metadata.class_names), metadata.network.name)


def questions_for(
    server: Server, target: Target, photographs: Sequence[Photograph], class_names: Sequence[str]
) -> list[Question]:
    """Return requests as the server takes them, each with the check of its answer."""
    return [
        Question(target.post(*server.encode(photograph.data)), _check(server, photograph, class_names))
        for photograph in photographs
    ]


def _check(server: Server, photograph: Photograph, class_names: Sequence[str]) -> Callable[[Response], str]:
    expected = class_names.index(photograph.label)

    def find_error(response: Response) -> str:
        if response.status != 200:
            return response.failure or f"status {response.status}"
        try:
            document: Any = json.loads(response.body)
            probabilities = server.read(document, class_names)
            best = max(range(len(class_names)), key=probabilities.__getitem__)
        except (ValueError, KeyError, IndexError, TypeError):
            return UNREADABLE
        is_right = best == expected and abs(probabilities[best] - photograph.probability) <= _TOLERANCE
        return "" if is_right else WRONG

    return find_error
