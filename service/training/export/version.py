"""Files of a version: both forms of the network and its metadata. All figures are measured on these files."""

from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import keras
import numpy as np

from service.data.dataset import Dataset
from service.data.split import split_to_json
from service.engines.engine import EngineInfo, Scores
from service.engines.savedmodel import SavedModelEngine
from service.evaluation.folder import FolderEvaluation, stated_metrics
from service.evaluation.metrics import evaluate
from service.evaluation.none_of_these import count_confidence
from service.evaluation.score import Answers, score_photographs
from service.files import digest_bytes
from service.networks.backbones import describe_source
from service.ranking import ConfidentRule
from service.store.layout import BACKBONE_LICENCE_FILE, DISTANCE, METADATA_FILE, MODEL_CARD_FILE, SPLIT_FILE
from service.store.metadata import BackboneSource, Metadata, Network, Preprocessing
from service.training.calibrate import energies, softmax
from service.training.export.light_model import NUM_CALIBRATION, export_cpu_models, score_in_pieces
from service.training.export.model_card import write_card
from service.training.export.saved_model import check_saved_model, export_saved_model
from service.training.fit import predict
from service.training.trained_network import TrainedNetwork, on_pixels

_MOST_COMPARED = 512  # held-out photographs that the networks are compared on; they lie in memory together
_NUM_CHECKED = 33  # photographs that the reloaded SavedModel is compared on; odd, so that no batch size is round


def write_version(folder: Path, model: str, trained: TrainedNetwork, dataset: Dataset) -> FolderEvaluation:
    """Write a version of `model` into `folder`, all but its digests.

    Return the evaluation of its SavedModel on the test part.

    Raises:
        PublishError: A file cannot be written, or does not answer as the trained network does.
    """
    network, class_names, rule, limits = trained.network, dataset.class_names, dataset.rule, dataset.limits
    compared, calibration = trained.held_out.sample(_MOST_COMPARED), trained.calibration
    images = np.asarray(compared.images)
    numbers = {"scale": trained.scale, "offset": trained.offset, "temperature": calibration.temperature}
    with keras.device("cpu:0"):  # as the check of the export computes: a GPU in TensorFloat-32 differs by 1e-3
        outputs = predict(on_pixels(network, trained.scale, trained.offset), images)
    probabilities = softmax(outputs["logits"], calibration.temperature).astype(np.float32)
    expected = Scores(probabilities, energies(outputs["logits"]), outputs.get(DISTANCE))
    export_saved_model(network, folder, **numbers)
    check_saved_model(folder, images[:_NUM_CHECKED], expected.first(_NUM_CHECKED))
    engine = SavedModelEngine(folder, EngineInfo("savedmodel", "cpu", "float32", "the check of the export"))
    cpu_models = export_cpu_models(
        network, folder, **numbers,
        calibration=np.asarray(dataset.sample_squares("train", NUM_CALIBRATION).images), images=images,
        class_indices=compared.class_indices, expected=score_in_pieces(engine, images),
        is_pretrained=bool(trained.backbone),
    )  # fmt: skip
    photographs = dataset.split.photographs["test"]
    paths = tuple(photograph.path for photograph in photographs)
    truth = np.array([class_names.index(photograph.label) for photograph in photographs])
    scores = score_photographs(engine, paths, rule, limits)
    answers = Answers(paths, scores.probabilities, truth)
    confident = ConfidentRule(calibration.confidence_threshold, calibration.max_energy, calibration.max_distance)
    confidence = count_confidence(engine, confident, scores, truth, dataset.held_out_sources, rule, limits)
    engine.close()
    test = evaluate(answers.probabilities, truth, class_names)
    calibrated = evaluate(calibration.probabilities, calibration.class_indices, class_names)
    metrics = [stated_metrics(calibrated, calibration.part)] if calibration.part != "test" else []
    metrics.append(stated_metrics(test, "test"))
    split_list = split_to_json(dataset.split)
    metadata = Metadata(
        model=model,
        class_names=list(class_names),
        preprocessing=Preprocessing(**asdict(rule), scale=trained.scale, offset=trained.offset),
        network=Network(
            name=network.name,
            num_classes=len(class_names),
            num_parameters=network.count_params(),
            backbone=_write_licence(folder, trained.backbone),
        ),
        recipe=dict(trained.recipe_values),
        data_digest=dataset.check.digest,
        split_digest=digest_bytes(split_list.encode()),
        metrics=metrics,
        cpu_models=cpu_models,
        temperature=calibration.temperature,
        confidence_threshold=calibration.confidence_threshold,
        max_energy=calibration.max_energy,
        max_distance=calibration.max_distance,
        confidence=confidence,
        photograph_digest="decoded",
        created=datetime.now(UTC).replace(microsecond=0),
        libraries=_library_versions(),
    )
    (folder / SPLIT_FILE).parent.mkdir(exist_ok=True)
    (folder / SPLIT_FILE).write_text(split_list, encoding="utf-8")
    (folder / METADATA_FILE).write_text(metadata.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (folder / MODEL_CARD_FILE).write_text(write_card(metadata), encoding="utf-8")
    return FolderEvaluation(test, answers, ())


def _write_licence(folder: Path, backbone: str) -> BackboneSource | None:
    """Write the licence of pretrained weights into the version. Return their source."""
    if not backbone:
        return None
    source = describe_source(backbone)
    (folder / BACKBONE_LICENCE_FILE).parent.mkdir(exist_ok=True)
    (folder / BACKBONE_LICENCE_FILE).write_text(source.licence_text, encoding="utf-8")
    return BackboneSource(
        weights=source.package, weights_sha256=source.sha256, learned_from=source.learned_from, licence=source.licence
    )


def _library_versions() -> dict[str, str]:
    found = {}
    for name in ("keras", "tensorflow", "tensorflow-cpu", "onnx", "tf2onnx", "onnxruntime", "numpy", "pillow"):
        with suppress(PackageNotFoundError):  # tensorflow and tensorflow-cpu are never installed together
            found[name] = version(name)
    return found
