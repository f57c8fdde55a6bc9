"""Bodies of answers: their fields, and a document that describes them."""

from pydantic import TypeAdapter

from service.api.schemas import LabelProbability, ModelVersion, PredictionBody


def test_a_prediction_is_written_to_the_letter() -> None:
    body = PredictionBody(
        request_id="r-1",
        model=ModelVersion("flowers", 3),
        label="roses",
        probability=0.941,
        confident=True,
        predictions=[LabelProbability("roses", 0.941)],
    )
    assert TypeAdapter(PredictionBody).dump_json(body) == (
        b'{"request_id":"r-1","model":{"name":"flowers","version":3},"label":"roses","probability":0.941,'
        b'"confident":true,"predictions":[{"label":"roses","probability":0.941}]}'
    )


def test_the_example_fits_its_schema() -> None:
    adapter = TypeAdapter(PredictionBody)
    example = adapter.json_schema()["example"]
    assert adapter.dump_python(adapter.validate_python(example)) == example
