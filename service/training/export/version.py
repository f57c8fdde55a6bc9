"""The files of a version: both forms of the network, and its metadata; whatever is said of it is measured on them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import keras
import numpy as np

from service.data.batches import LabelledPixels, load_squares
from service.data.check import DataCheck
from service.data.split import Split, split_to_json
from service.engines.engine import EngineInfo
from service.engines.savedmodel import SavedModelEngine
from service.evaluation.folder import FolderEvaluation, stated_metrics
from service.evaluation.metrics import evaluate
from service.evaluation.score import Answers, score_photographs
from service.imaging.pixels import ImageLimits, ResizeRule
from service.store.layout import METADATA_FILE, SPLIT_FILE
from service.store.metadata import Metadata, Network, Preprocessing
from service.training.calibrate import Calibration, softmax
from service.training.export.light_model import NUM_CALIBRATION, export_cpu_models
from service.training.export.saved_model import check_saved_model, export_saved_model
from service.training.fit import predict_logits
from service.training.recipe import Recipe

_NUM_CHECKED = 33  # photographs that the reloaded SavedModel is compared on; odd, so that no batch size is round


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """What a version is made of: the network, and all that is said of it.

    `name` is the model's. `network`, with batch norms folded, maps float32 (N, image_size, image_size, 3), normalised
    as `recipe` says, to logits (N, num_classes). `described` is what the model card says of the training;
    `calibration` has temperature and threshold, and the figures of the photographs that they come from; `check` and
    `split` tell of the photographs and their parts. `unseen` are squares that the network has not been trained on: the
    CPU engine's models are compared on them.
    """

    name: str
    network: keras.Model
    recipe: Recipe
    described: Mapping[str, Any]
    calibration: Calibration
    check: DataCheck
    split: Split
    unseen: LabelledPixels


def write_version(folder: Path, trained: TrainedNetwork, *, rule: ResizeRule, limits: ImageLimits) -> FolderEvaluation:
    """Write the version into `folder`, all but its digests.

    Args:
        folder: of the draft.
        trained: the network, and what is said of it.
        rule: how photographs become squares.
        limits: of a photograph.

    Returns:
        The evaluation on the test part, by the SavedModel as it lies in `folder`.

    Raises:
        PublishError: a file cannot be written, or does not answer as the trained network does.
    """
    network, recipe, calibration = trained.network, trained.recipe, trained.calibration
    check, split, unseen = trained.check, trained.split, trained.unseen
    images, temperature = np.asarray(unseen.images), calibration.temperature
    with keras.device("cpu:0"):  # as the check of the export computes: a GPU in TensorFloat-32 differs by 1e-3
        expected = softmax(predict_logits(network, unseen, recipe), temperature).astype(np.float32)
    export_saved_model(network, folder, scale=recipe.scale, offset=recipe.offset, temperature=temperature)
    check_saved_model(folder, images[:_NUM_CHECKED], expected[:_NUM_CHECKED])
    engine = SavedModelEngine(folder, EngineInfo("savedmodel", "cpu", "float32", "the check of the export"))
    train_part = split.photographs["train"]
    some = load_squares(train_part[:: -(-len(train_part) // NUM_CALIBRATION)], check.class_names, rule, limits)
    cpu_models = export_cpu_models(
        network, folder, scale=recipe.scale, offset=recipe.offset, temperature=temperature,
        calibration=np.asarray(some.images), images=images, class_indices=unseen.class_indices,
        expected=engine.run(images),
    )  # fmt: skip
    photographs = split.photographs["test"]
    paths = tuple(photograph.path for photograph in photographs)
    truth = np.array([check.class_names.index(photograph.label) for photograph in photographs])
    answers = Answers(paths, score_photographs(engine, paths, rule, limits), truth)
    engine.close()
    test = evaluate(answers.probabilities, truth, check.class_names)
    metrics = [
        stated_metrics(
            evaluate(calibration.probabilities, calibration.class_indices, check.class_names), calibration.part
        ),
        stated_metrics(test, "test"),
    ]
    split_list = split_to_json(split)
    metadata = Metadata(
        model=trained.name,
        class_names=list(check.class_names),
        preprocessing=Preprocessing(
            shorter_side=rule.shorter_side,
            image_size=rule.image_size,
            scale=recipe.scale,
            offset=recipe.offset,
        ),
        network=Network(name=recipe.network, num_classes=len(check.class_names), num_parameters=network.count_params()),
        recipe=dict(trained.described),
        data_digest=check.digest,
        split_digest=hashlib.sha256(split_list.encode()).hexdigest(),
        metrics=metrics,
        cpu_models=cpu_models,
        temperature=temperature,
        confidence_threshold=calibration.confidence_threshold,
        created=datetime.now(UTC).replace(microsecond=0),
        libraries=_library_versions(
            ("keras", "tensorflow", "tensorflow-cpu", "onnx", "onnxruntime", "numpy", "pillow")
        ),
    )
    (folder / SPLIT_FILE).parent.mkdir(exist_ok=True)
    (folder / SPLIT_FILE).write_text(split_list, encoding="utf-8")
    (folder / METADATA_FILE).write_text(metadata.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return FolderEvaluation(test, answers, ())


def _library_versions(names: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # tensorflow and tensorflow-cpu are never installed together
            continue
    return found
