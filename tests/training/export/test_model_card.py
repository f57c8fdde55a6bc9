import json
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY

from service.store.layout import METADATA_FILE
from service.store.metadata import BackboneSource, Confidence, Metadata, SourceConfidence, read_metadata
from service.training.export.model_card import write_card


@pytest.fixture
def metadata() -> Metadata:
    newest = max((REPOSITORY / "model_store" / "flowers").glob("[0-9]*"), key=lambda path: int(path.name))
    return read_metadata(newest / METADATA_FILE)


def read_head(card: str) -> dict[str, Any]:
    start, head, _ = card.split("---\n", 2)
    assert start == ""
    read = yaml.safe_load(head)
    assert isinstance(read, dict)
    return read


def test_the_head_says_what_the_hub_asks_for(metadata: Metadata) -> None:
    head = read_head(write_card(metadata))
    assert (head["pipeline_tag"], head["library_name"]) == ("image-classification", "keras")
    [model] = head["model-index"]
    stated = {result["dataset"]["name"].split(", ")[1]: result["metrics"][0]["value"] for result in model["results"]}
    assert stated == {part.part: part.accuracy for part in metadata.metrics}


def test_the_text_names_classes_figures_and_source(metadata: Metadata) -> None:
    source = BackboneSource(weights="weights", weights_sha256="0" * 64, learned_from="ImageNet", licence="Apache-2.0")
    network = metadata.network.model_copy(update={"backbone": source})
    text = write_card(metadata.model_copy(update={"network": network}))
    assert "`daisy`, `dandelion`, `roses`, `sunflowers`, `tulips`" in text
    assert "pretrained on ImageNet (Apache-2.0)" in text
    assert metadata.stated is not None
    assert f"{metadata.stated.num_correct} of {metadata.stated.num_photographs} photographs right" in text


def test_the_text_counts_confident_answers(metadata: Metadata) -> None:
    counted = Confidence(
        num_photographs=497, num_confident=473, num_errors=38, num_confident_errors=26,
        none_of_these=[SourceConfidence(source="my `cars`", num_images=10, num_confident=1)],
    )  # fmt: skip
    text = write_card(metadata.model_copy(update={"confidence": counted}))
    assert "Confident answers: 473 of 497 photographs of the test part, 26 of the 38 errors among them." in text
    assert "Confident answers to images of none of the classes, from `my 'cars'`: 1 of 10." in text
    assert "Confident answers" not in write_card(metadata.model_copy(update={"confidence": None}))


def test_names_of_classes_cannot_change_the_head(metadata: Metadata) -> None:
    names = ["a`b", "---\nlicense: mit", '"', "# x", "{model}"]
    card = write_card(metadata.model_copy(update={"class_names": names, "model": "garden"}))
    assert read_head(card).keys() == read_head(write_card(metadata)).keys()
    assert "`a'b`, `--- license: mit`" in card
    assert json.dumps("garden") in card
