"""The benchmark of colour profiles: what it compares is what it says, and the document has its figures."""

import json

from conftest import REPOSITORY
from support.drawing import draw_photograph, encode
from support.icc import matrix_profile

from benchmarks.colour import measure, render
from benchmarks.serving.photographs import without_profile
from service.imaging.decode import decode_image

TAGGED = encode(draw_photograph(2, 3), icc_profile=matrix_profile(2.2))
BARE = encode(draw_photograph(2, 3))


def test_a_profile_is_cut_out_and_nothing_else() -> None:
    assert decode_image(TAGGED).profile == matrix_profile(2.2)
    assert without_profile(TAGGED) == BARE
    assert without_profile(BARE) == BARE
    assert without_profile(BARE[:100]) == BARE[:100], "it ends where a file does"


def test_a_photograph_is_measured_in_three_ways() -> None:
    cost = measure(TAGGED, rounds=1)
    assert cost.is_converted
    assert 0 < cost.difference < 1
    assert min(cost.as_served_ms, cost.bare_ms, cost.as_before_ms) > 0
    assert not measure(BARE, rounds=1).is_converted


def test_the_document_says_what_the_kept_results_say() -> None:
    result = json.loads((REPOSITORY / "benchmarks" / "results" / "colour.json").read_text(encoding="utf-8"))
    text = (REPOSITORY / "docs" / "reference" / "images.md").read_text(encoding="utf-8")
    assert render(result) in text
    differences = result["difference_to_converting_first"]
    assert f"differ by {differences['mean_of_those_whose_profile_is_applied']:.2f} of 255 levels" in text
    for precision in ("float32", "int8"):
        assert {order["same_label_as_last"] for order in result["answers"][precision].values()} == {497}
