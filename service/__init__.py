"""Flower classification: a folder of photographs becomes a SavedModel, and the SavedModel answers over HTTP.

serving    image bytes -> decode -> resize -> micro-batch -> engine -> probabilities -> top-k -> response
training   folder -> check -> split -> batches -> fit -> fold -> calibrate -> export -> evaluate -> model_store/

Importing this package sets four environment variables. It precedes every library that reads them, and child
processes inherit them.
"""

import os
from pathlib import Path

from service.libraries import disable_telemetry, keep_files_in, limit_tensorflow_log

__version__ = "0.1.0"

disable_telemetry()
limit_tensorflow_log(2)
keep_files_in(Path(os.environ.get("FLOWERS_CACHE") or "~/.cache/flowers"))
