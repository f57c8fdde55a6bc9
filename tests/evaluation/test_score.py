import os
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from support.drawing import draw_photograph, encode
from support.fakes import FakeEngine
from support.giving_up import given_up
from support.icc import cmyk_profile, matrix_profile

from service.data.check import pixels_digest
from service.engines.engine import Scores
from service.errors import (
    DatasetError,
    EngineFailed,
    ImageBytesTooLarge,
    InvalidImage,
    UnsupportedImageFormat,
)
from service.evaluation.score import BATCH_SIZE, score_each, score_photographs
from service.imaging.decode import decode_image, decode_square
from service.imaging.limits import ImageLimits, ResizeRule
from service.imaging.pixels import Decoded, Pixels
from service.imaging.profiles import to_srgb

RULE, LIMITS = ResizeRule(image_size=112, shorter_side=120), ImageLimits()


class RememberingEngine(FakeEngine):
    """Keeps every image that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[Pixels] = []

    def run(self, images: Pixels) -> Scores:
        self.images += list(images)
        return super().run(images)


@pytest.fixture
def paths(drawn_folder: Path) -> list[Path]:
    return sorted(drawn_folder.rglob("*.jpg"))


def square(path: Path) -> Pixels:
    return decode_square(path.read_bytes(), RULE, LIMITS)


def test_the_engine_sees_the_pixels_of_serving(paths: list[Path], tmp_path: Path) -> None:
    for name, mode, profile in (("rgb", "RGB", matrix_profile(2.2)), ("ink", "CMYK", cmyk_profile())):
        tagged = encode(draw_photograph(2, seed=3).convert(mode), icc_profile=profile)
        (tmp_path / f"{name}.jpg").write_bytes(tagged)
        paths.append(tmp_path / f"{name}.jpg")
    engine = RememberingEngine()
    score_photographs(engine, paths, RULE, LIMITS)
    np.testing.assert_array_equal(engine.images, [square(path) for path in paths])


def test_row_i_belongs_to_path_i(paths: list[Path]) -> None:
    engine = FakeEngine()
    scores = score_photographs(engine, paths[::-1], RULE, LIMITS)
    rows, expected = scores.probabilities, engine.run(np.stack([square(path) for path in paths[::-1]])).probabilities
    assert len(np.unique(expected[:, 0])) > 10, "the photographs can be told apart"
    np.testing.assert_array_equal(rows, expected)
    assert rows.dtype == np.float32


def test_energies_and_distances_are_those_of_the_rows(paths: list[Path]) -> None:
    class Plain(FakeEngine):
        def run(self, images: Pixels) -> Scores:
            return Scores(super().run(images).probabilities)

    engine = FakeEngine()
    scores, plain = score_photographs(engine, paths, RULE, LIMITS), score_photographs(Plain(), paths, RULE, LIMITS)
    expected = engine.run(np.stack([square(path) for path in paths]))
    assert expected.energy is not None
    assert len(np.unique(expected.energy)) > 10
    np.testing.assert_array_equal(scores.energy, expected.energy)
    np.testing.assert_array_equal(scores.distance, expected.distance)
    assert plain.energy is None
    assert plain.distance is None


def test_batches_are_bounded(paths: list[Path]) -> None:
    engine = FakeEngine()
    score_photographs(engine, paths, RULE, LIMITS)
    assert engine.batches == [BATCH_SIZE, len(paths) - BATCH_SIZE]


def test_scores_that_are_given_up_decode_no_more(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []
    is_given_up = given_up(monkeypatch)

    def decode(data: bytes, limits: ImageLimits) -> Decoded:
        if len(decoded) >= BATCH_SIZE:
            is_given_up.wait()
        decoded.append(data)
        return decode_image(data, limits)

    monkeypatch.setattr("service.evaluation.score.decode_image", decode)
    results = score_each(FakeEngine(), paths, RULE, LIMITS, decode_threads=1)
    assert isinstance(results, Generator)
    next(results)
    results.close()
    assert len(decoded) < len(paths)


def test_photographs_come_from_where_they_are_read(paths: list[Path]) -> None:
    def read(path: Path) -> bytes:
        if path.name == "1":
            raise InvalidImage("It is not there.")
        return paths[int(path.name)].read_bytes()

    results = list(score_each(FakeEngine(), [Path("2"), Path("1"), Path("0")], RULE, LIMITS, read=read))
    good = np.stack([row for result in results if (row := result.probabilities) is not None])
    expected = score_photographs(FakeEngine(), [paths[2], paths[0]], RULE, LIMITS)
    np.testing.assert_array_equal(good, expected.probabilities)
    assert [str(result.error) for result in results] == ["None", "It is not there.", "None"]


def test_no_photographs_have_no_rows() -> None:
    assert score_photographs(FakeEngine(), [], RULE, LIMITS).probabilities.shape == (0, 5)


def test_a_bad_file_spoils_only_its_own_place(paths: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image at all")
    (tmp_path / "cut.jpg").write_bytes(paths[0].read_bytes()[:2000])
    (tmp_path / "long.jpg").write_bytes(paths[0].read_bytes() + bytes(100_000))
    os.mkfifo(tmp_path / "pipe.jpg")
    bad = [tmp_path / name for name in ("text.jpg", "cut.jpg", "long.jpg", "pipe.jpg", "missing.jpg")]
    mixed = [paths[0], *bad, paths[1]]
    limits = ImageLimits(max_image_bytes=100_000)
    results = list(score_each(FakeEngine(), mixed, RULE, limits))
    assert [result.path for result in results] == mixed
    kinds = [UnsupportedImageFormat, InvalidImage, ImageBytesTooLarge, InvalidImage, InvalidImage]
    assert [type(result.error) for result in results] == [type(None), *kinds, type(None)]
    assert "No such file" in str(results[5].error)
    good = np.stack([row for result in results if (row := result.probabilities) is not None])
    np.testing.assert_array_equal(good, score_photographs(FakeEngine(), paths[:2], RULE, LIMITS).probabilities)


def test_one_bad_photograph_among_those_expected_good_is_named(paths: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image at all")
    with pytest.raises(DatasetError, match=r"text\.jpg cannot be scored"):
        score_photographs(FakeEngine(), [*paths, tmp_path / "text.jpg"], RULE, LIMITS)


def test_a_photograph_that_has_changed_is_not_scored(paths: list[Path]) -> None:
    digests = {paths[0]: pixels_digest(decode_image(paths[0].read_bytes()).pixels), paths[1]: "0" * 64}
    results = list(score_each(FakeEngine(), paths[:3], RULE, LIMITS, pixels_digests=digests))
    assert [result.error is None for result in results] == [True, False, True]
    assert "has changed" in str(results[1].error)


def test_a_profiled_photograph_is_known_by_either_digest(tmp_path: Path) -> None:
    path = tmp_path / "tagged.jpg"
    path.write_bytes(encode(draw_photograph(2, seed=3), icc_profile=matrix_profile(2.2)))
    decoded = decode_image(path.read_bytes())
    digests = {pixels_digest(decoded.pixels), pixels_digest(to_srgb(decoded))}
    assert len(digests) == 2
    for digest in digests:
        (result,) = score_each(FakeEngine(), [path], RULE, LIMITS, pixels_digests={path: digest})
        assert result.error is None


def test_a_failing_engine_is_no_bad_photograph(paths: list[Path]) -> None:
    engine = FakeEngine()
    engine.error = EngineFailed("out of memory")
    with pytest.raises(EngineFailed):
        score_photographs(engine, paths, RULE, LIMITS)
