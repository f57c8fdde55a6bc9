from pathlib import Path

import pytest
from support.versions import publish_example

from service.errors import InvalidParameter, InvalidVersion, ModelNotFound, VersionNotFound
from service.store.layout import (
    CPU_MODEL_FILES,
    check_model_name,
    list_precisions,
    model_folder,
    model_of,
    parse_version,
    version_command,
    version_folder,
)
from service.store.versions import list_models, list_versions, resolve_version

HOSTILE_NAMES = [
    "",
    ".",
    "..",
    "../flowers",
    "a/b",
    "/etc",
    "a\\b",
    "a\0b",
    "flowers\n",
    ".hidden",
    "-rf",
    "ä",
    "a" * 65,
    "candidates",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_that_leaves_the_store_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelNotFound):
        model_folder(tmp_path, name)
    with pytest.raises(ModelNotFound):
        resolve_version(tmp_path, name)
    with pytest.raises(InvalidParameter):
        check_model_name(name)


@pytest.mark.parametrize("name", ["flowers", "A-1_b.c", "0", "a" * 64, "candidates2"])
def test_a_plain_name_is_a_folder_of_the_store(tmp_path: Path, name: str) -> None:
    check_model_name(name)
    assert model_folder(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize("version", [0, -1, 10**18])
def test_a_version_is_an_integer_from_1(tmp_path: Path, version: int) -> None:
    with pytest.raises(VersionNotFound):
        version_folder(tmp_path, "flowers", version)


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("1", 1),
        ("12", 12),
        ("9" * 18, 10**18 - 1),
        ("9" * 19, None),
        ("0", None),
        ("01", None),
        ("1.0", None),
        ("-1", None),
        ("1\n", None),
        ("\u0661", None),
        ("", None),
    ],
)
def test_only_integers_without_leading_zeros_name_versions(name: str, version: int | None) -> None:
    assert parse_version(name) == version


def test_a_link_that_leaves_the_store_is_refused(tmp_path: Path) -> None:
    elsewhere, store = tmp_path / "elsewhere", tmp_path / "store"
    publish_example(elsewhere)
    publish_example(store)
    (store / "flowers" / "2").symlink_to(elsewhere / "flowers" / "1")
    (store / "foreign").symlink_to(elsewhere / "flowers")
    assert list_versions(store, "flowers") == [1]
    assert list_models(store) == ["flowers"]
    with pytest.raises(InvalidVersion, match="leaves the store"):
        resolve_version(store, "flowers", 2)
    with pytest.raises(ModelNotFound, match="leaves the store"):
        resolve_version(store, "foreign")


def test_links_within_and_to_a_store_are_followed(tmp_path: Path) -> None:
    publish_example(tmp_path / "store")
    (tmp_path / "store" / "flowers" / "2").symlink_to("1")
    (tmp_path / "mounted").symlink_to("store")
    assert list_versions(tmp_path / "mounted", "flowers") == [1, 2]


def test_a_version_has_the_precisions_of_its_files() -> None:
    assert list_precisions(["saved_model.pb"]) == ()
    assert list_precisions(["saved_model.pb", CPU_MODEL_FILES["float32"]]) == ("float32",)
    assert list_precisions(CPU_MODEL_FILES.values()) == ("float32", "int8")


def test_a_folder_tells_the_model_of_a_candidate_too() -> None:
    assert model_of(Path("store/garden/3")) == "garden"
    assert model_of(Path("store/garden/candidates/4")) == "garden"


def test_a_command_names_a_model_that_is_no_default() -> None:
    assert version_command("take", "flowers", 4) == "flowers models take 4"
    assert version_command("use", "garden", 4) == "flowers models use 4 --model garden"
