"""`flowers export`: a version as one file for other programs."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.text import Text

from service.api.page import find_samples
from service.cli.predict import find_files
from service.cli.remote import fetch_store
from service.cli.terminal import captured_messages, print_json, print_result
from service.errors import UsageError
from service.imaging.limits import ResizeRule
from service.libraries import limit_tensorflow_log
from service.settings import StoreSettings
from service.store.verify import VerifiedVersion, verify_version
from service.store.versions import find_version

if TYPE_CHECKING:
    from service.training.export.portable import Comparison

Form = Literal["onnx", "litert"]

_SUFFIXES: dict[Form, str] = {"onnx": ".onnx", "litert": ".tflite"}
_IMAGE = 'numpy.asarray(PIL.Image.open("photo.jpg").convert("RGB"))'
_USES: dict[Form, dict[str, str]] = {
    "onnx": {
        "Python": f'onnxruntime.InferenceSession(FILE).run(["probabilities"], {{"image": {_IMAGE}}})[0]',
        "JavaScript": '(await (await ort.InferenceSession.create(FILE)).run({image: new ort.Tensor("uint8", rgb, '
        "[height, width, 3])})).probabilities.data",
    },
    "litert": {
        "Python": "ai_edge_litert.interpreter.Interpreter(FILE).get_signature_runner()"
        f'(image={_IMAGE})["probabilities"]'
    },
}
"""A line for each language. FILE stands for the file's path, as a string."""


def export(
    *,
    to: Form,
    version: Annotated[int | None, Parameter(name="--version")] = None,
    output: Path | None = None,
    photographs: Path | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    settings: StoreSettings | None = None,
) -> int:
    """Write a version as one file that takes images of any size, for programs without this one.

    Resize and normalisation are inside. The file is compared with the SavedModel on 200 images first. At most one may
    have another label. The libraries of training are needed.

    Args:
        to: Format. onnx is for ONNX Runtime, also in a browser. litert is for phones.
        version: Number of the version. Without it, the version that is served.
        output: File to write. The default is MODEL-VERSION.onnx or .tflite in the current folder.
        photographs: Folder with images for the comparison. Without it, 200 views of five sample photographs are taken.
        as_json: Print a JSON object instead of sentences.
    """
    settings = settings or StoreSettings()
    verified = verify_version(find_version(fetch_store(settings, version), settings.model, version).folder)
    target = output or Path(f"{settings.model}-{verified.folder.name}{_SUFFIXES[to]}")
    if target.exists():
        raise UsageError(f"{target} is there already. Remove it, or name another file with --output.")
    files = find_files([photographs]) if photographs else find_samples()
    compared = _export(verified, target, to, files, are_samples=photographs is None)
    class_names = verified.metadata.class_names
    uses = {language: line.replace("FILE", json.dumps(str(target))) for language, line in _USES[to].items()}
    if as_json:
        print_json({"file": str(target), **vars(compared), "class_names": class_names, "use": uses})
        return 0
    num_same = compared.num_photographs - compared.num_different
    sentences = [
        f"{target} gives the label of the SavedModel for {num_same} of {compared.num_photographs} images. "
        f"Probabilities differ by {compared.difference_max:.2g} at most.",
        f"The order of the probabilities: {', '.join(class_names)}.",
        *(f"{language}: {line}" for language, line in uses.items()),
    ]
    print_result(Text("\n".join(sentences)))
    return 0


def _export(verified: VerifiedVersion, target: Path, to: Form, files: list[Path], *, are_samples: bool) -> "Comparison":
    limit_tensorflow_log(3)
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    with captured_messages():
        from service.training.export.checked_images import list_views, read_pairs
        from service.training.export.portable import export_portable

        preprocessing = verified.metadata.preprocessing
        rule = ResizeRule(preprocessing.image_size, preprocessing.shorter_side)
        pairs = list_views(files, rule) if are_samples else read_pairs(files, rule)
        return export_portable(verified, target, to, pairs)
