"""Model card of a version, in the form of Hugging Face's Hub: a head in YAML, then text for people."""

import json
from collections.abc import Iterator
from typing import Any

from service.store.metadata import Confidence, Metadata, PartMetrics

_TEXT = """
# {model}

A classifier of photographs. It tells {classes} apart.

| | |
|---|---|
| network | {network}, {num_parameters:,} parameters{backbone} |
| input | RGB, uint8, {image_size}x{image_size}: the shorter side becomes {shorter_side} pixels, the centre is cut out |
| output | probabilities of {num_classes} classes |
| recipe | {recipe} |
| trained | {created} |

{figures}

The probabilities are calibrated with the temperature {temperature:.3f}.
An answer counts as confident from {threshold:.2f}.{confidence}

## Use

This folder is a version of a model store. `flowers serve --model {model}` answers with it over HTTP, and
`flowers predict --model {model}` scores files. `saved_model.pb` is a TensorFlow SavedModel.
`assets.extra/cpu_model.onnx` is the same network for ONNX Runtime.

## Limits

The model knows these classes and no other. A photograph of something else gets one of them. Such an answer should not
be confident, but it may be. The figures hold for photographs like those of the training. Measure it on photographs of
your own with `flowers evaluate`.
"""


def write_card(metadata: Metadata) -> str:
    """Return the card of a version.

    Source: Hugging Face Hub, "Model Cards", and Mitchell et al. (2019), "Model Cards for Model Reporting".
    """
    network, backbone = metadata.network, metadata.network.backbone
    head: dict[str, Any] = {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "tensorflow", "onnx", network.name],
        "model-index": [{"name": metadata.model, "results": [_to_result(part) for part in metadata.metrics]}],
    }
    # JSON is YAML, too. So no name of a class can end the head.
    lines = [f"{key}: {json.dumps(value)}" for key, value in head.items()]
    text = _TEXT.format(
        model=metadata.model,
        classes=", ".join(f"`{_inline(name)}`" for name in metadata.class_names),
        network=network.name,
        num_parameters=network.num_parameters,
        backbone=f", pretrained on {_inline(backbone.learned_from)} ({backbone.licence})" if backbone else "",
        image_size=metadata.preprocessing.image_size,
        shorter_side=metadata.preprocessing.shorter_side,
        num_classes=network.num_classes,
        recipe=_inline(str(metadata.recipe.get("name"))),
        created=f"{metadata.created:%Y-%m-%d}",
        figures="\n".join(_describe(part) for part in metadata.metrics),
        temperature=metadata.temperature,
        threshold=metadata.confidence_threshold,
        confidence="".join(f"\n{sentence}" for sentence in _describe_confidence(metadata.confidence)),
    )
    return "\n".join(("---", *lines, "---", text))


def _to_result(part: PartMetrics) -> dict[str, Any]:
    metrics = [
        {"type": "accuracy", "value": part.accuracy},
        {"type": "expected_calibration_error", "value": part.expected_calibration_error},
    ]
    return {
        "task": {"type": "image-classification"},
        "dataset": {"name": f"photographs of the training's folder, {part.part}", "type": "imagefolder"},
        "metrics": metrics,
    }


def _describe(part: PartMetrics) -> str:
    return (
        f"- {part.part}: {part.num_correct} of {part.num_photographs} photographs right, {part.accuracy:.1%} (95 % "
        f"interval {part.accuracy_low:.1%} to {part.accuracy_high:.1%}), calibration error "
        f"{part.expected_calibration_error:.3f}"
    )


def _describe_confidence(counted: Confidence | None) -> Iterator[str]:
    if counted is None:
        return
    yield (
        f"Confident answers: {counted.num_confident} of {counted.num_photographs} photographs of the test part, "
        f"{counted.num_confident_errors} of the {counted.num_errors} errors among them."
    )
    for one in counted.none_of_these:
        images = f"images of none of the classes, from `{_inline(one.source)}`"
        yield f"Confident answers to {images}: {one.num_confident} of {one.num_images}."


def _inline(text: str) -> str:
    """Return a text that stays within its line and its code span."""
    return " ".join(text.replace("`", "'").split())
