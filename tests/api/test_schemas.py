"""Bodies of answers: their fields, and a document that describes them."""

import pytest
from pydantic import TypeAdapter

from service.api.schemas import BatchBody, LabelProbability, ModelVersion, PredictionBody
from service.ranking import Reason


@pytest.mark.parametrize(
    ("reason", "written"),
    [(None, b'"confident":true,'), ("unlike-training", b'"confident":false,"reason":"unlike-training",')],
)
def test_a_prediction_is_written_to_the_letter(reason: Reason | None, written: bytes) -> None:
    body = PredictionBody(
        request_id="r-1",
        model=ModelVersion("flowers", 3),
        label="roses",
        probability=0.941,
        confident=reason is None,
        reason=reason,
        predictions=[LabelProbability("roses", 0.941)],
    )
    assert TypeAdapter(PredictionBody).dump_json(body) == (
        b'{"request_id":"r-1","model":{"name":"flowers","version":3},"label":"roses","probability":0.941,'
        + written
        + b'"predictions":[{"label":"roses","probability":0.941}]}'
    )


def test_the_document_has_the_reasons_and_no_null() -> None:
    schema = TypeAdapter(PredictionBody).json_schema(mode="serialization")
    reason = schema["properties"]["reason"]
    assert (reason["type"], reason["enum"]) == ("string", ["low-probability", "unlike-training"])
    assert "default" not in reason
    assert "reason" not in schema["required"]


@pytest.mark.parametrize("body", [PredictionBody, BatchBody])
def test_the_example_fits_its_schema(body: type[PredictionBody | BatchBody]) -> None:
    adapter = TypeAdapter(body)
    example = adapter.json_schema()["example"]
    assert adapter.dump_python(adapter.validate_python(example)) == example
