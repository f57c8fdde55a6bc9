"""Files of the page for people, and its sample photographs. NOTICE credits the photographers."""

from pathlib import Path

INDEX = "index.html"
MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
}
"""Suffix of a file of the page -> its media type. No other file is sent."""

_FOLDER = Path(__file__).resolve().parent
SAMPLES = _FOLDER / "samples"
"""Folder of the sample photographs."""


def read_files() -> dict[str, bytes]:
    """Read every file of the page. A name is a path below the page's folder, such as `samples/daisy.jpg`."""
    paths = [path for path in sorted(_FOLDER.rglob("*")) if path.suffix in MEDIA_TYPES]
    return {path.relative_to(_FOLDER).as_posix(): path.read_bytes() for path in paths}


def find_samples() -> list[Path]:
    """List the sample photographs, one a class, in the order of the classes."""
    return sorted(SAMPLES.glob("*.jpg"))
