import json
from pathlib import Path

import pytest
from support.versions import example_metadata

from service.errors import InvalidVersion
from service.store.metadata import METADATA_FORMAT, Network, Preprocessing, parse_metadata, read_metadata


def test_metadata_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "metadata.json"
    path.write_text(example_metadata().model_dump_json(), encoding="utf-8")
    assert read_metadata(path) == example_metadata()
    assert json.loads(path.read_text())["format"] == METADATA_FORMAT


def test_metadata_older_than_onnxruntime_can_be_read() -> None:
    document = json.loads(example_metadata().model_dump_json())
    del document["cpu_models"]
    assert parse_metadata(json.dumps(document), version="1").cpu_models == []


def test_stated_metrics_prefer_the_test_part() -> None:
    metadata = example_metadata()
    validation, test = metadata.metrics
    assert (validation.part, test.part) == ("validation", "test")
    assert metadata.stated == test
    assert example_metadata(metrics=[validation]).stated == validation
    train = validation.model_copy(update={"part": "train"})
    assert example_metadata(metrics=[train, validation]).stated == train
    assert example_metadata(metrics=[]).stated is None


def test_a_missing_file_is_an_invalid_version(tmp_path: Path) -> None:
    with pytest.raises(InvalidVersion, match=r"metadata\.json of version 7 cannot be read: No such file"):
        read_metadata(tmp_path / "7" / "assets.extra" / "metadata.json")


def test_bytes_that_are_no_text_are_an_invalid_version(tmp_path: Path) -> None:
    (tmp_path / "metadata.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidVersion):
        read_metadata(tmp_path / "metadata.json")


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"format": None}, "format"),
        ({"class_names": ["one"]}, "class_names"),
        ({"class_names": ["one", "two"]}, "num_classes is 5, class_names has 2"),
        ({"class_names": ["one", "two", "three", "four", "two"]}, "class_names has a name twice"),
        (
            {"preprocessing": {"shorter_side": 200, "scale": 1, "offset": 0}},
            "shorter_side is 200, less than image_size",
        ),
        ({"temperature": 0}, "temperature"),
        ({"confidence_threshold": 1.1}, "confidence_threshold"),
        ({"network": {"name": "alexnet_v2"}}, "network.num_classes"),
    ],
)
def test_a_wrong_value_is_named(changes: dict[str, object], where: str) -> None:
    document = {**json.loads(example_metadata().model_dump_json()), **changes}
    with pytest.raises(InvalidVersion, match=f"of version 3 is wrong at .*{where}"):
        parse_metadata(json.dumps(document), version="3")


def test_a_square_may_be_as_large_as_the_side() -> None:
    preprocessing = Preprocessing(shorter_side=224, image_size=224, scale=1, offset=0)
    text = example_metadata(preprocessing=preprocessing).model_dump_json()
    assert parse_metadata(text, version="3").preprocessing == preprocessing


def test_a_thousand_classes_fit_into_metadata(tmp_path: Path) -> None:
    names = [f"a species of flowers, number {number:03d}" for number in range(1000)]
    metadata = example_metadata(
        class_names=names, network=Network(name="alexnet_v2", num_classes=1000, num_parameters=1)
    )
    (tmp_path / "metadata.json").write_text(metadata.model_dump_json(), encoding="utf-8")
    assert read_metadata(tmp_path / "metadata.json") == metadata
