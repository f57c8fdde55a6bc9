import hashlib
import shutil
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.drawing import CLASS_NAMES, draw_photograph, encode
from support.fakes import FakeEngine
from support.versions import example_metadata, write_example

from service.data.check import CheckedPhotograph, check_folder
from service.data.folder import read_folder
from service.data.given_split import take_given_split
from service.data.parts import Part
from service.data.split import Split, split_to_json
from service.engines.engine import Scores
from service.engines.open_version import ServedVersion
from service.errors import ChangedVersion, DatasetError, InvalidVersion
from service.evaluation.folder import evaluate_folder, find_differences, select_part, stated_metrics
from service.evaluation.metrics import evaluate
from service.evaluation.score import score_photographs
from service.evaluation.seen import find_learned
from service.imaging.limits import ImageLimits
from service.imaging.pixels import Pixels
from service.store.layout import SPLIT_FILE
from service.store.publish import publish_version
from service.store.verify import verify_version
from service.store.versions import resolve_version

LIMITS = ImageLimits()


class PixelEngine(FakeEngine):
    """Its five probabilities are five pixels' shares of red: different images get different labels."""

    def run(self, images: Pixels) -> Scores:
        reds = images[:, 40::36, 112, 0][:, :5].astype(np.float32) + 1
        return Scores(reds / reds.sum(axis=1, keepdims=True))


@pytest.fixture(scope="module")
def split(drawn_folder: Path) -> Split:
    """Of every five photographs three, one and one."""
    photographs = check_folder(read_folder(drawn_folder)).photographs
    parts: dict[Part, tuple[CheckedPhotograph, ...]] = {
        "train": tuple(photograph for index, photograph in enumerate(photographs) if index % 5 < 3),
        "validation": photographs[3::5],
        "test": photographs[4::5],
    }
    return Split(seed=0, fractions=(0.6, 0.2, 0.2), photographs=parts, set_aside=())


@pytest.fixture
def local(split: Split, tmp_path: Path) -> ServedVersion:
    """A version that says it was trained on the drawn folder, and an engine for it."""
    text = split_to_json(split).encode()
    with publish_version(tmp_path / "store", "flowers") as draft:
        write_example(draft.folder, example_metadata(split_digest=hashlib.sha256(text).hexdigest()))
        (draft.folder / SPLIT_FILE).write_bytes(text)
    stored = resolve_version(tmp_path / "store", "flowers")
    return ServedVersion(verify_version(stored.folder), PixelEngine())


def publish_with_split(local: ServedVersion, split_list: str) -> ServedVersion:
    """Publish another version beside `local`, with this split list."""
    store = local.verified.folder.parent.parent
    with publish_version(store, "flowers") as draft:
        digest = hashlib.sha256(split_list.encode()).hexdigest()
        write_example(draft.folder, example_metadata(split_digest=digest))
        (draft.folder / SPLIT_FILE).write_text(split_list, encoding="utf-8")
    return ServedVersion(verify_version(resolve_version(store, "flowers").folder), PixelEngine())


@pytest.fixture
def folder(drawn_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    shutil.copytree(drawn_folder, tmp_path / "photographs")
    return tmp_path / "photographs"


def test_every_photograph_is_compared_with_its_folder(local: ServedVersion, folder: Path) -> None:
    photographs = read_folder(folder)
    result = evaluate_folder(local, photographs, LIMITS)
    rows = score_photographs(
        local.engine, [photograph.path for photograph in photographs.photographs], local.rule, LIMITS
    )
    labels = [CLASS_NAMES[index] for index in rows.probabilities.argmax(axis=1)]
    truth = [photograph.label for photograph in photographs.photographs]
    assert len(set(labels)) == 5
    assert result.evaluation.num_photographs == 60
    assert result.evaluation.num_correct == sum(map(str.__eq__, labels, truth))
    assert result.evaluation.class_names == CLASS_NAMES
    assert [metrics.support for metrics in result.evaluation.per_class] == [12] * 5
    assert result.unscored == ()


def test_the_classes_are_matched_by_name_not_by_place(local: ServedVersion, folder: Path, tmp_path: Path) -> None:
    turned = local.metadata.model_copy(update={"class_names": list(CLASS_NAMES[::-1])})
    straight = evaluate_folder(local, read_folder(folder), LIMITS).evaluation
    other_model = ServedVersion(replace(local.verified, metadata=turned), local.engine)
    other = evaluate_folder(other_model, read_folder(folder), LIMITS).evaluation
    np.testing.assert_array_equal(other.confusion[::-1], straight.confusion)


def test_classes_that_the_folder_lacks_are_not_measured(local: ServedVersion, folder: Path) -> None:
    whole = evaluate_folder(local, read_folder(folder), LIMITS)
    shutil.rmtree(folder / "daisy")
    for path in (folder / "tulips").iterdir():
        path.unlink()
    result = evaluate_folder(local, read_folder(folder, may_lack_classes=True), LIMITS).evaluation
    present = [1, 2, 3]
    expected = np.zeros((5, 5), np.int64)
    expected[present] = whole.evaluation.confusion[present]
    np.testing.assert_array_equal(result.confusion, expected)
    assert result.absent_classes == ("daisy", "tulips")
    assert result.num_photographs == 36
    assert result.num_correct == expected.trace()
    assert result.class_names == CLASS_NAMES


def test_a_class_is_known_in_either_unicode_form(local: ServedVersion, folder: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "rosé") for form in ("NFC", "NFD"))
    names = [decomposed if label == "roses" else label for label in CLASS_NAMES]
    metadata = local.metadata.model_copy(update={"class_names": names})
    other = ServedVersion(replace(local.verified, metadata=metadata), local.engine)
    plain = evaluate_folder(local, read_folder(folder), LIMITS).evaluation
    for form in (composed, decomposed):
        shutil.copytree(folder, folder.parent / form)
        (folder.parent / form / "roses").rename(folder.parent / form / form)
        found = evaluate_folder(other, read_folder(folder.parent / form), LIMITS).evaluation
        np.testing.assert_array_equal(found.confusion, plain.confusion)


def test_a_folder_that_vanishes_is_named(local: ServedVersion, folder: Path) -> None:
    listed = read_folder(folder)
    folder.rename(folder.parent / "elsewhere")
    with pytest.raises(DatasetError, match=r"0 of 60 .*daisy/000.jpg\. It cannot be read \(No such file"):
        evaluate_folder(local, listed, LIMITS)


def test_a_folder_with_other_classes_is_refused(local: ServedVersion, folder: Path) -> None:
    (folder / "roses").rename(folder / "rosen")
    with pytest.raises(DatasetError, match=r"does not know: rosen\. It knows daisy, .* Rename or remove"):
        evaluate_folder(local, read_folder(folder), LIMITS)


def test_an_unreadable_photograph_is_named_beside_the_result(local: ServedVersion, folder: Path) -> None:
    (folder / "roses" / "003.jpg").write_text("no image")
    seen: list[tuple[int, int]] = []
    result = evaluate_folder(local, read_folder(folder), LIMITS, progress=lambda *counts: seen.append(counts))
    assert seen == [(done, 60) for done in range(1, 61)]
    assert result.evaluation.num_photographs == 59
    assert [scored.path for scored in result.unscored] == [folder / "roses" / "003.jpg"]


def test_a_folder_without_one_good_photograph_is_refused(local: ServedVersion, folder: Path) -> None:
    for path in folder.rglob("*.jpg"):
        path.write_text("no image")
    with pytest.raises(DatasetError, match=r"0 of 60 photographs .* could be scored. The first is .*daisy/000.jpg\. "):
        evaluate_folder(local, read_folder(folder), LIMITS)


def test_a_part_holds_the_stored_split_photographs(local: ServedVersion, split: Split, drawn_folder: Path) -> None:
    folder = read_folder(drawn_folder)
    for part, expected in split.photographs.items():
        selected = select_part(local, folder, part)
        assert {photograph.path for photograph in selected} == {photograph.path for photograph in expected}
        result = evaluate_folder(local, folder, LIMITS, part=part)
        assert result.evaluation.num_photographs == len(expected)
        assert result.unscored == ()


def test_a_part_is_found_when_photographs_have_been_added(local: ServedVersion, folder: Path) -> None:
    before = evaluate_folder(local, read_folder(folder), LIMITS, part="test").evaluation
    (folder / "roses" / "new.jpg").write_bytes(encode(draw_photograph(2, seed=99)))
    assert evaluate_folder(local, read_folder(folder), LIMITS, part="test").evaluation.to_dict() == before.to_dict()


def test_a_part_is_found_in_the_other_unicode_form(local: ServedVersion, split: Split, folder: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "rosé") for form in ("NFC", "NFD"))
    text = split_to_json(split).replace("roses/", f"{decomposed}/").encode()
    (folder / "roses").rename(folder / composed)
    names = [composed if label == "roses" else label for label in CLASS_NAMES]
    with publish_version(local.verified.folder.parent.parent, "flowers") as draft:
        digest = hashlib.sha256(text).hexdigest()
        write_example(draft.folder, example_metadata(split_digest=digest, class_names=names))
        (draft.folder / SPLIT_FILE).write_bytes(text)
    stored = resolve_version(local.verified.folder.parent.parent, "flowers")
    other = ServedVersion(verify_version(stored.folder), PixelEngine())
    selected = select_part(other, read_folder(folder), "test")
    assert len(selected) == len(split.photographs["test"])


def test_equal_names_in_both_unicode_forms_stay_apart(local: ServedVersion, folder: Path) -> None:
    forms = [unicodedata.normalize(form, "rosé") for form in ("NFC", "NFD")]
    for number, form in enumerate(forms):
        (folder / form).mkdir()
        (folder / form / "1.jpg").write_bytes(encode(draw_photograph(2, seed=90 + number)))
    text = split_to_json(Split(0, (0.6, 0.2, 0.2), {
        "train": check_folder(read_folder(folder)).photographs, "validation": (), "test": (),
    }, ()))  # fmt: skip
    other = publish_with_split(local, text)
    assert {photograph.path for photograph in select_part(other, read_folder(folder), "train")} >= {
        folder / form / "1.jpg" for form in forms
    }


def test_learned_photographs_are_counted_apart(local: ServedVersion, split: Split, folder: Path) -> None:
    (folder / "roses" / "001.jpg").rename(folder / "roses" / "renamed.jpg")
    result = evaluate_folder(local, read_folder(folder), LIMITS)
    of_test = evaluate_folder(local, read_folder(folder), LIMITS, part="test")
    assert result.counted is not None
    assert (result.counted.unseen.num_photographs, result.counted.learned.num_photographs) == (12, 48)
    assert result.counted.unseen.num_correct == of_test.evaluation.num_correct
    assert result.counted.learned.num_correct == result.evaluation.num_correct - of_test.evaluation.num_correct
    assert result.headline.evaluation.to_dict() == of_test.evaluation.to_dict()
    assert set(result.headline.answers.paths) == {
        photograph.path for photograph in select_part(local, read_folder(folder), "test")
    }
    assert [one.path for one in result.headline.scored] == list(result.headline.answers.paths)


@pytest.mark.parametrize(("part", "learned"), [("train", 36), ("validation", 12), ("test", 0)])
def test_the_part_decides_what_was_learned(part: Part, learned: int, local: ServedVersion, drawn_folder: Path) -> None:
    result = evaluate_folder(local, read_folder(drawn_folder), LIMITS, part=part)
    assert result.counted is not None
    assert result.counted.learned.num_photographs == learned
    assert result.headline is result


@pytest.mark.parametrize(("kind", "may_be_srgb"), [("decoded", False), ("decoded-or-srgb", True)])
def test_the_metadata_say_which_digests_are_stored(kind: str, may_be_srgb: bool, local: ServedVersion) -> None:
    metadata = local.metadata.model_copy(update={"photograph_digest": kind})
    learned = find_learned(ServedVersion(replace(local.verified, metadata=metadata), local.engine))
    assert learned is not None
    assert (len(learned.digests), learned.may_be_srgb) == (48, may_be_srgb)


def test_without_a_split_list_nothing_is_known_apart(local: ServedVersion, drawn_folder: Path) -> None:
    metadata = local.metadata.model_copy(update={"split_digest": "0" * 64})
    other = ServedVersion(replace(local.verified, metadata=metadata), local.engine)
    result = evaluate_folder(other, read_folder(drawn_folder), LIMITS)
    assert result.counted is None
    assert result.headline is result


def test_a_part_of_a_split_folder_is_found_again(local: ServedVersion, split: Split, tmp_path: Path) -> None:
    folders: dict[Part, str] = {"train": "train", "validation": "Val", "test": "test"}
    for part, photographs in split.photographs.items():
        for photograph in photographs:
            path = tmp_path / "parts" / folders[part] / photograph.label / photograph.path.name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(photograph.path, path)
    given = take_given_split(check_folder(read_folder(tmp_path / "parts")), seed=0)
    other = publish_with_split(local, split_to_json(given))
    whole = read_folder(tmp_path / "parts", may_lack_classes=True)
    for part in split.photographs:
        inner = read_folder(tmp_path / "parts" / folders[part], may_lack_classes=True)
        expected = {photograph.path for photograph in inner.photographs}
        for folder in (whole, inner):
            assert {photograph.path for photograph in select_part(other, folder, part)} == expected
    with pytest.raises(DatasetError, match=r"such as test/daisy/.* Give the folder"):
        select_part(other, read_folder(tmp_path / "parts" / "train"), "test")
    together = evaluate_folder(other, whole, LIMITS)
    assert together.evaluation.num_photographs == 60
    assert together.counted is not None
    assert together.counted.unseen.num_photographs == 12


def test_a_changed_photograph_of_the_part_is_named(local: ServedVersion, folder: Path) -> None:
    changed = next(iter(select_part(local, read_folder(folder), "test"))).path
    changed.write_bytes(encode(draw_photograph(0, seed=99)))
    result = evaluate_folder(local, read_folder(folder), LIMITS, part="test")
    assert [scored.path for scored in result.unscored] == [changed]
    assert "has changed" in str(result.unscored[0].error)
    assert evaluate_folder(local, read_folder(folder), LIMITS).unscored == (), "without a part it is as good as any"


def test_a_missing_photograph_of_the_part_is_refused(local: ServedVersion, folder: Path) -> None:
    missing = next(iter(select_part(local, read_folder(folder), "test")))
    missing.path.unlink()
    with pytest.raises(DatasetError, match=rf"1 of the \d+ photographs .*such as {missing.label}/{missing.path.name}"):
        select_part(local, read_folder(folder), "test")


def test_a_split_list_unlike_the_metadata_is_refused(local: ServedVersion, folder: Path) -> None:
    metadata = local.metadata.model_copy(update={"split_digest": "0" * 64})
    other = ServedVersion(replace(local.verified, metadata=metadata), local.engine)
    with pytest.raises(InvalidVersion, match="Version 1 has not the split list"):
        select_part(other, read_folder(folder), "test")


def test_a_split_list_replaced_after_verification_is_refused(local: ServedVersion, folder: Path) -> None:
    (local.verified.folder / SPLIT_FILE).write_text("[]")
    with pytest.raises(ChangedVersion, match=r"split\.json of version 1 was changed"):
        select_part(local, read_folder(folder), "test")
    (local.verified.folder / SPLIT_FILE).unlink()
    with pytest.raises(InvalidVersion):
        select_part(local, read_folder(folder), "test")


def test_what_was_measured_is_what_is_stated(local: ServedVersion, folder: Path) -> None:
    evaluation = evaluate_folder(local, read_folder(folder), LIMITS, part="test").evaluation
    stated = stated_metrics(evaluation, "test")
    assert stated.part == "test"
    assert find_differences(stated, evaluation) == ()


@pytest.mark.parametrize(
    ("field", "change", "is_same"),
    [
        ("num_correct", 1, False),
        ("num_photographs", 1, False),
        ("accuracy", 1e-5, False),
        ("accuracy", 1e-8, True),
        ("accuracy_low", 1e-5, False),
        ("accuracy_high", 1e-5, False),
        ("expected_calibration_error", 0.03, True),
        ("expected_calibration_error", 0.04, False),
    ],
)
def test_a_difference_of_one_photograph_is_found(field: str, change: float, is_same: bool) -> None:
    rows = np.tile(np.array([[0.3, 0.7], [0.8, 0.2], [0.6, 0.4]], np.float32), (20, 1))
    evaluation = evaluate(rows, np.arange(60) % 2, ("roses", "tulips"))
    stated = stated_metrics(evaluation, "test")
    other = stated.model_copy(update={field: getattr(stated, field) + change})
    differences = find_differences(other, evaluation)
    assert bool(differences) is not is_same
    if differences:
        assert differences[0].startswith(f"{field} is {getattr(other, field)} in the metadata and ")
