"""Limits are known to settings and metadata, which load no library of numbers."""

import subprocess
import sys

from service.imaging.limits import ImageLimits, ResizeRule


def test_limits_are_imported_without_numpy() -> None:
    program = "import sys, service.imaging.limits; sys.exit(bool({'numpy', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_defaults_are_those_of_the_documents() -> None:
    assert ImageLimits() == ImageLimits(max_image_bytes=20 * 1024 * 1024, max_image_pixels=50_000_000)
    assert ResizeRule() == ResizeRule(image_size=224, shorter_side=256)
