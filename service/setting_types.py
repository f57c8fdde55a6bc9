"""Settings that several programs share: their bounds and their sentences."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from pydantic import Field, PlainValidator

from service.engines.wish import DeviceWish
from service.remote_store.location import StoreUrl, parse_location

MaxImageBytes = Annotated[int, Field(ge=1024, le=1024**3, description="Limit of an image file, in bytes.")]
MaxImagePixels = Annotated[
    int,
    Field(
        ge=1024,
        le=1_000_000_000,
        description="Limit of decoded pixels, judged from the header. A large JPEG counts as its decoder shrinks it. "
        "It may have 200 million pixels in the file.",
    ),
]
DeviceSetting = Annotated[
    DeviceWish, Field(description="Device. auto takes a GPU if there is one. gpu fails without one.")
]
ModelStore = Annotated[
    Path | StoreUrl,
    PlainValidator(parse_location),  # a `Path` would lose a slash of a URL
    Parameter(accepts_keys=False, metavar="PATH|URL"),  # the fields of a URL are no flags
    Field(description="Folder with one folder per model, or the URL of one: s3://, gs:// or https://."),
]
Cache = Annotated[
    Path,
    Field(
        description="Folder of fetched data, of files of libraries, of versions from a remote store, and of decoded "
        "photographs that do not fit into memory."
    ),
]
MaxDecodedBytes = Annotated[
    int,
    Field(
        ge=1024,
        le=1024**5,
        description="Limit of decoded photographs in the cache, in bytes. Those that were unused for longest are "
        "deleted first.",
    ),
]
