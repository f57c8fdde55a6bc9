"""`metadata.json` of a version, written by training and read by serving."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.errors import InvalidVersion
from service.files import read_regular

METADATA_FORMAT = 2  # format that this program writes. It reads older ones and refuses newer ones
MAX_METADATA_BYTES = 1024 * 1024  # limit of `metadata.json`. A thousand classes take 40 KiB


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Preprocessing(_Frozen):
    """Steps from a decoded image to the network's input. Scale and offset are inside the SavedModel."""

    resize: Literal["shorter-side-then-centre-crop"] = "shorter-side-then-centre-crop"
    shorter_side: int = Field(256, ge=1, description="Pixels of the shorter side before the centre crop.")
    image_size: int = Field(224, ge=1, description="Pixels per side of the square that the network sees.")
    scale: float = Field(description="The network sees pixel * scale + offset.")
    offset: float

    @model_validator(mode="after")
    def _square_fits(self) -> "Preprocessing":
        if self.shorter_side < self.image_size:
            raise ValueError(f"shorter_side is {self.shorter_side}, less than image_size, which is {self.image_size}")
        return self


class BackboneSource(_Frozen):
    """Pretrained weights that a network began with."""

    weights: str = Field(description="Package of the weights, with its version.")
    weights_sha256: str = Field(description="sha256 of the package's file of weights.")
    learned_from: str = Field(description="Photographs that the weights have learned before.")
    licence: str = Field(description="SPDX identifier. Its text is `assets.extra/BACKBONE_LICENCE.txt`.")


class Network(_Frozen):
    """Architecture and its size."""

    name: str
    num_classes: int = Field(ge=2)
    num_parameters: int = Field(ge=1)
    backbone: BackboneSource | None = Field(None, description="null for a network that began with random weights.")


class PartMetrics(_Frozen):
    """Metrics of one part of the split, for the pixels and probabilities of serving."""

    part: str
    num_photographs: int = Field(ge=1)
    num_correct: int = Field(ge=0)
    accuracy: float = Field(ge=0, le=1)
    accuracy_low: float = Field(ge=0, le=1, description="Lower end of the 95 % Wilson interval.")
    accuracy_high: float = Field(ge=0, le=1)
    expected_calibration_error: float = Field(ge=0, le=1)


class SourceConfidence(_Frozen):
    """Answers to images of none of the classes, of one source that the version has not learned from."""

    source: str
    num_images: int = Field(ge=1)
    num_confident: int = Field(ge=0, description="The fewer, the better.")


class Confidence(_Frozen):
    """What `confident` is worth, counted on the test part and on other images."""

    num_photographs: int = Field(ge=1)
    num_confident: int = Field(ge=0)
    num_errors: int = Field(ge=0)
    num_confident_errors: int = Field(ge=0, description="The fewer, the better.")
    none_of_these: list[SourceConfidence] = Field(description="Empty without such images.")


class CpuModel(_Frozen):
    """Network for onnxruntime in one precision, compared with the SavedModel on held-out photographs."""

    precision: Literal["float32", "int8"]
    quantised: str = Field("", description="Layers in int8.")
    refused: str | None = Field(description="Why it was not exported. null if it was.")
    num_photographs: int = Field(ge=1)
    same_top1: float = Field(ge=0, le=1, description="Share of the photographs whose best class is the same.")
    accuracy: float = Field(ge=0, le=1)
    accuracy_of_saved_model: float = Field(ge=0, le=1)
    difference_p99: float = Field(ge=0, description="Of each photograph's largest difference in a probability.")
    difference_max: float = Field(ge=0)


class Metadata(_Frozen):
    """Content of `assets.extra/metadata.json`."""

    format: int = METADATA_FORMAT
    model: str
    class_names: Annotated[list[str], Field(min_length=2)]
    preprocessing: Preprocessing
    network: Network
    recipe: dict[str, Any] = Field(
        description="Every value of the training, with the seed. `refit` tells whether it took place."
    )
    data_digest: str = Field(description="sha256 over the decoded-pixel digests and labels of all photographs used.")
    split_digest: str = Field(description="sha256 of `split.json` beside this file.")
    metrics: list[PartMetrics]
    cpu_models: list[CpuModel] = Field([], description="Empty in versions from before onnxruntime.")
    temperature: float = Field(gt=0, description="Logits are divided by it before the softmax, inside the SavedModel.")
    confidence_threshold: float = Field(ge=0, le=1, description="Below this probability `confident` is false.")
    max_energy: float | None = Field(None, description="Above this energy `confident` is false. null means no limit.")
    max_distance: float | None = Field(None, description="Above this distance it is false, too. null means no limit.")
    confidence: Confidence | None = Field(None, description="null in versions from before it was counted.")
    photograph_digest: Literal["decoded", "decoded-or-srgb"] = Field(
        "decoded-or-srgb", description="Pixels of the digests in `split.json`. Format 2 has decoded ones only."
    )
    created: datetime
    libraries: dict[str, str]

    @model_validator(mode="after")
    def _classes_agree(self) -> "Metadata":
        if self.network.num_classes != len(self.class_names):
            raise ValueError(
                f"network.num_classes is {self.network.num_classes}, class_names has {len(self.class_names)}"
            )
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError("class_names has a name twice")
        return self

    @property
    def stated(self) -> PartMetrics | None:
        """Return the metrics of the test part, or else of the first part.

        The validation part may have metrics of another network, which was trained without it.
        """
        by_part = {metrics.part: metrics for metrics in self.metrics}
        return by_part.get("test") or next(iter(self.metrics), None)

    @property
    def stated_accuracy(self) -> float | None:
        """Return the accuracy of `stated`, or None."""
        return self.stated.accuracy if self.stated else None


def read_metadata(path: Path) -> Metadata:
    """Read a `metadata.json`, verified or not. Raises `InvalidVersion`."""
    try:
        text = read_regular(path, MAX_METADATA_BYTES, follow_links=False)
    except OSError as error:
        raise InvalidVersion(
            f"{path.name} of version {path.parent.parent.name} cannot be read ({error.strerror}). Export it again."
        ) from error
    return parse_metadata(text, version=path.parent.parent.name)


def parse_metadata(text: str | bytes, *, version: str) -> Metadata:
    """Parse the text of `metadata.json`. `version` is for messages. Raises `InvalidVersion`."""
    try:
        metadata_format = _FormatOnly.model_validate_json(text).format
        if metadata_format > METADATA_FORMAT:
            raise InvalidVersion(
                f"Version {version} has metadata format {metadata_format}. This program reads up to "
                f"{METADATA_FORMAT}. Update the service, or pin an older version with `flowers models use`."
            )
        return Metadata.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "the document"
        reason = f"metadata.json of version {version} is wrong at {where} ({first['msg']}). Export it again."
        raise InvalidVersion(reason) from error


class _FormatOnly(_Frozen):
    format: int
