import pytest

from service.errors import SettingsError
from service.remote_store.bucket import BucketStore
from service.remote_store.location import StoreUrl
from service.remote_store.reader import check_installed, open_reader
from service.remote_store.web import WebStore


def test_https_needs_no_further_package() -> None:
    url = StoreUrl("https", "host.example", "")
    check_installed(url, find=lambda _: None)
    assert isinstance(open_reader(url), WebStore)


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_a_bucket_without_its_package_names_the_extra(scheme: str, package: str) -> None:
    with pytest.raises(SettingsError, match=f"needs {package}.*-m pip install {package}`"):
        check_installed(StoreUrl(scheme, "garden", ""), find=lambda name: name == "fsspec")


def test_other_schemes_are_left_to_fsspec() -> None:
    assert isinstance(open_reader(StoreUrl("memory", "garden", "")), BucketStore)
