"""The reader of buckets on fsspec's own file system in memory. `tests/clients` has it on moto's S3."""

import logging
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from support.versions import publish_example

from service.errors import InvalidVersion, RemoteStoreError
from service.remote_store.bucket import BucketStore
from service.remote_store.location import RemoteModel, StoreUrl
from service.store.layout import SHA256SUMS_FILE
from service.store.manage import pin_version


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for _ in range(2):
        publish_example(tmp_path / "store")
    publish_example(tmp_path / "store", is_candidate=True)
    return tmp_path / "store"


@pytest.fixture
def bucket(store: Path) -> Iterator[BucketStore]:
    yield BucketStore(StoreUrl("memory", "garden", "/models"), 1.0)
    fsspec.filesystem("memory").store.clear()


def upload(store: Path) -> None:
    system = fsspec.filesystem("memory")
    for path in store.rglob("*"):
        if path.is_file():
            system.pipe_file(f"garden/models/{path.relative_to(store).as_posix()}", path.read_bytes())


def test_versions_are_listed_without_candidates(store: Path, bucket: BucketStore) -> None:
    upload(store)
    assert bucket.list_versions("flowers") == RemoteModel((1, 2))
    pin_version(store, "flowers", 1)
    upload(store)
    assert bucket.list_versions("flowers") == RemoteModel((1, 2), 1)


def test_an_absent_model_has_no_versions(bucket: BucketStore) -> None:
    assert bucket.list_versions("flowers") == RemoteModel()


def test_libraries_log_nothing(bucket: BucketStore) -> None:
    bucket.list_versions("flowers")
    for library in ("s3fs", "gcsfs", "botocore"):
        assert not logging.getLogger(library).isEnabledFor(logging.CRITICAL)


def test_a_file_is_read_whole(store: Path, bucket: BucketStore) -> None:
    upload(store)
    content = b"".join(bucket.read("flowers", 2, SHA256SUMS_FILE))
    assert content == (store / "flowers" / "2" / SHA256SUMS_FILE).read_bytes()


def test_a_missing_object_is_named(bucket: BucketStore) -> None:
    with pytest.raises(InvalidVersion, match=r"saved_model\.pb is missing in the remote store"):
        list(bucket.read("flowers", 2, "saved_model.pb"))


def test_a_pin_without_a_number_is_refused(store: Path, bucket: BucketStore) -> None:
    (store / "flowers" / "PINNED").write_text("newest")
    upload(store)
    with pytest.raises(RemoteStoreError, match="PINNED of flowers"):
        bucket.list_versions("flowers")


def test_the_text_of_a_library_error_is_not_shown() -> None:
    with pytest.raises(RemoteStoreError, match="ValueError") as caught:
        BucketStore(StoreUrl("hunter2", "garden", ""), 1.0).list_versions("flowers")  # fsspec repeats the scheme
    assert "hunter2" not in str(caught.value)
