"""Bodies of answers in JSON."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from service.ranking import Reason
from service.store.metadata import Metadata


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True)


# Predictions are plain data. Checking each answer costs more than writing it, and the batcher passes finite numbers
# only.


@dataclass(frozen=True)
class ModelVersion:
    """The version that answered."""

    name: str
    version: int


@dataclass(frozen=True)
class LabelProbability:
    """One class and its score."""

    label: str
    probability: Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class _Answer:
    request_id: Annotated[str, Field(description="As in the header X-Request-ID.")]
    model: ModelVersion


@dataclass(frozen=True, kw_only=True)
class _Scores:
    label: Annotated[str, Field(description="The most probable class.")]
    probability: Annotated[float, Field(ge=0, le=1, description="Its probability.")]
    confident: Annotated[bool, Field(description="False when the answer breaks a limit in the model's metadata.")]
    reason: Annotated[
        Reason | SkipJsonSchema[None],
        Field(
            description="Present only when `confident` is false. `low-probability` means that no class is probable "
            "enough. `unlike-training` means that the image is unlike the training photographs.",
            exclude_if=lambda reason: reason is None,
            json_schema_extra=lambda schema: schema.pop("default", None),
        ),
    ] = None
    predictions: Annotated[
        list[LabelProbability], Field(description="Best first. There are top_k of them. All classes sum to 1.")
    ]


@dataclass(frozen=True, kw_only=True)
class PredictionBody(_Scores, _Answer):
    """The answer for one image."""

    __pydantic_config__ = ConfigDict(
        json_schema_extra={
            "example": {
                "request_id": "0193a5d4-7f2c-7a51-8a5e-3f1b0c9d2e47",
                "model": {"name": "flowers", "version": 3},
                "label": "roses",
                "probability": 0.941,
                "confident": True,
                "predictions": [{"label": "roses", "probability": 0.941}, {"label": "tulips", "probability": 0.051}],
            }
        }
    )


@dataclass(frozen=True, kw_only=True)
class ExplanationBody(_Answer):
    """What the score of a label rests on."""

    __pydantic_config__ = ConfigDict(
        json_schema_extra={
            "example": {
                "request_id": "0193a5d4-7f2c-7a51-8a5e-3f1b0c9d2e47",
                "model": {"name": "flowers", "version": 3},
                "label": "roses",
                "probability": 0.941,
                "grid": [
                    [round(0.3 - 0.05 * (abs(row - 3) + abs(column - 3)), 2) for column in range(7)] for row in range(7)
                ],
            }
        }
    )

    label: Annotated[str, Field(description="The class that is explained.")]
    probability: Annotated[float, Field(ge=0, le=1, description="Its probability for the whole image.")]
    grid: Annotated[
        list[list[float]],
        Field(
            description="Seven rows from the top, seven cells from the left. They cover the square that the network "
            "sees. A value is the drop of the probability when that cell is covered. It is negative if the probability "
            "rises."
        ),
    ]


class PlaceProblem(_Body):
    """The reason why one image of a batch was refused."""

    type: str = Field(description="Kind of problem for programs. It is a path of this server that explains the kind.")
    title: str = Field(description="The kind in words. It never varies for one type.")
    status: int = Field(description="The status that the image alone would get.")
    detail: str = Field(description="What happened, what was expected, and what to do.")


class ProblemDetails(PlaceProblem):
    """The reason of a refusal (RFC 9457)."""

    status: int
    request_id: str


class ErrorBody(_Body):
    """The reason of a refusal, as clients of other protocols read it."""

    error: str = Field(description="What happened, what was expected, and what to do.")


@dataclass(frozen=True, kw_only=True)
class ImageScores(_Scores):
    """The answer for one image of a batch."""

    version: Annotated[
        int | SkipJsonSchema[None],
        Field(
            description="The version that scored the image. Present only where it is not that of `model`.",
            exclude_if=lambda version: version is None,
            json_schema_extra=lambda schema: schema.pop("default", None),
        ),
    ] = None


@dataclass(frozen=True)
class VertexBody:
    """The answer to Vertex AI."""

    predictions: Annotated[list[ImageScores], Field(description="One for each instance, in order.")]
    deployedModelId: Annotated[  # noqa: N815 - the protocol's own name
        str | SkipJsonSchema[None],
        Field(
            description="Present only where the platform has given an id.",
            exclude_if=lambda model_id: model_id is None,
            json_schema_extra=lambda schema: schema.pop("default", None),
        ),
    ] = None


@dataclass(frozen=True)
class LabelScore:
    """One class and its probability, in the words of Hugging Face."""

    label: str
    score: Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class ImageProblem:
    """The refusal of one image of a batch."""

    problem: PlaceProblem


@dataclass(frozen=True, kw_only=True)
class BatchBody(_Answer):
    """The answer for a batch."""

    __pydantic_config__ = ConfigDict(
        json_schema_extra={
            "example": {
                "request_id": "0193a5d4-7f2c-7a51-8a5e-3f1b0c9d2e47",
                "model": {"name": "flowers", "version": 3},
                "results": [
                    {
                        "label": "roses",
                        "probability": 0.941,
                        "confident": True,
                        "predictions": [
                            {"label": "roses", "probability": 0.941},
                            {"label": "tulips", "probability": 0.051},
                        ],
                    },
                    {
                        "problem": {
                            "type": "/problems/invalid-image",
                            "title": "Invalid image",
                            "status": 422,
                            "detail": "The image is cut short or damaged. Open it with another program, and save it "
                            "again.",
                        }
                    },
                ],
            }
        }
    )

    results: Annotated[
        list[ImageScores | ImageProblem], Field(description="One for each field `file`, in the order of the form.")
    ]


class Probe(_Body):
    """A probe that is true."""

    status: str


class ModelSummary(_Body):
    """One model of the store."""

    name: str
    live_version: int | None = Field(
        description="The version that answers here. Null if this service serves another model."
    )
    versions: list[int] = Field(description="All versions in the store, oldest first.")


class ModelList(_Body):
    """The models of the store."""

    models: list[ModelSummary]
    explanations: bool = Field(description="Whether POST /explain is there.")


class LiveVersion(_Body):
    """The version in use and its engine."""

    version: int
    engine: str
    device: str = Field(description="cpu or gpu, as read from a result.")
    precision: str
    reason: str = Field(description="Reason for this engine.")


class VersionSummary(_Body):
    """One version in the store."""

    version: int
    live: bool
    pinned: bool
    created: datetime | None = Field(description="Null when its metadata cannot be read.")
    accuracy: float | None = Field(description="On the test part, or on the first part in its metadata.")
    refused: str | None = Field(description="Reason of a refusal, if it was tried and refused.")


class ModelDetails(_Body):
    """One model with its versions, its live version and its card."""

    name: str
    live: LiveVersion | None
    versions: list[VersionSummary]
    card: Metadata | None = Field(description="Metadata of the live version, else of the newest readable one.")
