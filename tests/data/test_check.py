"""`check_folder`: each flaw by name, nothing dropped in silence; digests that depend on pixels alone."""

import hashlib
import json
import os
import shutil
import unicodedata
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image, ImageFile
from support.drawing import draw_photograph, encode
from support.icc import matrix_profile
from support.memory import growth_bytes

from service.data.check import SMALL_CLASS, DataCheck, check_folder, has_digest, pixels_digest
from service.data.folder import read_folder
from service.data.near_duplicates import perceptual_hash
from service.errors import OutOfMemory
from service.imaging.decode import decode_image
from service.imaging.limits import ImageLimits
from service.imaging.profiles import to_srgb


def _noise(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    """A photograph that resembles no other: coarse random blotches."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def _write(folder: Path, images: dict[str, Image.Image | bytes]) -> Path:
    for file, image in images.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(image if isinstance(image, bytes) else encode(image, "PNG"))
    return folder


def _plain(photographs_per_class: int = SMALL_CLASS) -> dict[str, Image.Image | bytes]:
    """Two classes without a flaw."""
    return {
        f"{label}/{number:03d}.png": _noise(1000 * class_index + number)
        for class_index, label in enumerate(("a", "b"))
        for number in range(photographs_per_class)
    }


def _check(folder: Path, limits: ImageLimits | None = None) -> DataCheck:
    return check_folder(read_folder(folder), limits or ImageLimits())


def _named(check: DataCheck) -> list[tuple[str, tuple[str, ...]]]:
    return [(finding.kind, finding.files) for finding in check.findings]


def test_good_data_has_no_findings(tmp_path: Path) -> None:
    check = _check(_write(tmp_path, _plain()))
    assert check.findings == ()
    assert check.class_sizes == {"a": SMALL_CLASS, "b": SMALL_CLASS}


def test_each_unusable_file_is_named_with_its_reason(tmp_path: Path) -> None:
    whole = encode(_noise(1), "JPEG")
    _write(
        tmp_path,
        _plain()
        | {
            "a/broken.jpg": whole[: len(whole) // 2],
            "a/empty.jpg": b"",
            "a/notes.jpg": b"%PDF-1.7 not a photograph",
            "a/inner/1.png": _noise(2),
            "b/wide.png": _noise(3, width=300, height=300),
            "b/heavy.png": b"\0" * 200_000,
        },
    )
    os.mkfifo(tmp_path / "b" / "pipe.jpg")
    (tmp_path / "b" / "nowhere.jpg").symlink_to(tmp_path / "missing.jpg")
    check = _check(tmp_path, ImageLimits(max_image_bytes=100_000, max_image_pixels=64 * 64))
    assert _named(check) == [
        ("broken-image", ("a/broken.jpg",)),
        ("not-an-image", ("a/empty.jpg",)),
        ("unreadable", ("a/inner",)),
        ("not-an-image", ("a/notes.jpg",)),
        ("image-too-large", ("b/heavy.png",)),
        ("unreadable", ("b/nowhere.jpg",)),
        ("unreadable", ("b/pipe.jpg",)),
        ("image-too-large", ("b/wide.png",)),
    ]
    assert len(check.photographs) == 2 * SMALL_CLASS
    assert all(finding.detail for finding in check.findings)


def test_both_unicode_forms_are_checked_as_one_class(tmp_path: Path) -> None:
    forms = [unicodedata.normalize(form, "rosé") for form in ("NFC", "NFD")]
    images = {f"{form}/1.png": _noise(7000 + number) for number, form in enumerate(forms)}
    check = _check(_write(tmp_path, _plain() | images | {f"{forms[1]}/again.png": _noise(7000)}))
    assert check.class_sizes == {"a": SMALL_CLASS, "b": SMALL_CLASS, forms[0]: 2}
    assert {photograph.file for photograph in check.photographs} >= {f"{form}/1.png" for form in forms}
    assert ("duplicate", (f"{forms[0]}/again.png",)) in _named(check)


def test_a_folder_in_a_class_folder_is_called_so(tmp_path: Path) -> None:
    check = _check(_write(tmp_path, _plain() | {"a/2024/1.png": _noise(0)}))
    assert [finding.sentence for finding in check.findings] == [
        "unreadable: a/2024. It is a folder. Move its photographs up.",
    ]


def test_the_first_of_identical_photographs_is_used(tmp_path: Path) -> None:
    again = _noise(5)  # a/005.png, once more in another format and with other metadata
    _write(tmp_path, _plain() | {"a/006_again.webp": encode(again, "WEBP", lossless=True), "a/zz.png": again})
    check = _check(tmp_path)
    assert _named(check) == [("duplicate", ("a/006_again.webp", "a/zz.png"))]
    assert "a/005.png" in check.findings[0].detail
    assert check.class_sizes["a"] == SMALL_CLASS


def test_identical_photographs_under_two_labels_are_all_set_aside(tmp_path: Path) -> None:
    _write(tmp_path, _plain(SMALL_CLASS + 1) | {"a/again.png": _noise(5), "b/stray.png": _noise(5)})
    check = _check(tmp_path)
    assert _named(check) == [("two-labels", ("a/005.png", "a/again.png", "b/stray.png"))]
    assert check.class_sizes == {"a": SMALL_CLASS, "b": SMALL_CLASS + 1}


def test_near_duplicates_are_named_and_stay_usable(tmp_path: Path) -> None:
    original = draw_photograph(0, seed=1)
    width, height = original.size
    variants: dict[str, Image.Image | bytes] = {
        "a/original.png": original,
        "a/compressed.jpg": encode(original, "JPEG", quality=40),
        "a/smaller.png": original.resize((width // 2, height // 2)),
        "a/cropped.png": original.crop((4, 3, width - 4, height - 3)),
        "a/grey.png": original.convert("L"),
    }
    check = _check(_write(tmp_path, _plain() | variants))
    assert [(kind, set(files)) for kind, files in _named(check)] == [("near-duplicates", set(variants))]
    assert len(check.photographs) == 2 * SMALL_CLASS + len(variants)


def test_near_duplicates_under_two_labels_form_no_group(tmp_path: Path) -> None:
    original = draw_photograph(0, seed=1)
    brighter = original.point([min(255, value * 5 // 4) for value in range(256)] * 3)
    check = _check(_write(tmp_path, _plain() | {"a/original.png": original, "b/brighter.png": brighter}))
    assert _named(check) == [("near-two-labels", ("a/original.png", "b/brighter.png"))]
    assert "different labels" in check.findings[0].detail
    assert check.near_duplicates == ()


def test_a_class_of_one_scene_is_one_finding(tmp_path: Path) -> None:
    scene = _noise(1)
    frames: dict[str, Image.Image | bytes] = {
        f"bench/{number}.png": _frame(scene, number) for number in range(SMALL_CLASS)
    }
    check = _check(_write(tmp_path, _plain() | frames))
    (finding,) = check.findings
    assert (finding.kind, finding.files, check.sequences) == ("sequence", (), ("bench",))
    for part_of_it in ("photographs of bench", "in the order of its file names", "can move others"):
        assert part_of_it in finding.detail
    assert check.near_duplicates == ()


def _frame(scene: Image.Image, number: int) -> Image.Image:
    """What a fixed camera takes of the scene: the same with other noise."""
    noise = np.random.default_rng(number).normal(0, 4, (scene.height, scene.width, 3))
    return Image.fromarray((np.asarray(scene) + noise).clip(0, 255).astype(np.uint8))


def test_small_and_unbalanced_classes_are_named(tmp_path: Path) -> None:
    images = _plain(SMALL_CLASS - 1) | {f"c/{number}.png": _noise(5000 + number) for number in range(100)}
    check = _check(_write(tmp_path, images))
    assert [finding.sentence for finding in check.findings] == [
        "small-class: a has 29 usable photographs, fewer than 30. Add some.",
        "small-class: b has 29 usable photographs, fewer than 30. Add some.",
        "unbalanced: c has 100 usable photographs and a 29, more than 3 to 1. Add to the smaller.",
    ]


def test_a_class_of_broken_files_does_not_raise(tmp_path: Path) -> None:
    check = _check(_write(tmp_path, {"a/1.jpg": b"x", "a/2.jpg": b"y", "b/1.jpg": b"z"}))
    assert check.class_sizes == {"a": 0, "b": 0}
    assert len(check.findings) == 5


def test_the_pixels_digest_ignores_the_colour_profile(tmp_path: Path) -> None:
    data = encode(draw_photograph(2, seed=3), "JPEG", quality=80, icc_profile=matrix_profile(2.2))
    pixels = decode_image(data).pixels
    expected = hashlib.sha256(b"240,320," + pixels.tobytes()).hexdigest()
    assert pixels_digest(pixels) == expected
    check = _check(_write(tmp_path, _plain() | {"a/photo.jpg": data}))
    (photograph,) = (photograph for photograph in check.photographs if photograph.file == "a/photo.jpg")
    assert photograph.pixels_digest == expected
    assert photograph.perceptual_hash == perceptual_hash(pixels)


def test_the_same_pixels_are_one_photograph_whatever_profile_says(tmp_path: Path) -> None:
    tagged, plain = (
        encode(draw_photograph(2, seed=3), "JPEG", **options) for options in ({"icc_profile": matrix_profile(2.2)}, {})
    )
    assert to_srgb(decode_image(tagged)).tobytes() != decode_image(plain).pixels.tobytes()
    check = _check(_write(tmp_path, _plain() | {"a/photo.jpg": plain, "a/tagged.jpg": tagged}))
    assert _named(check) == [("duplicate", ("a/tagged.jpg",))]


def test_a_split_list_may_hold_converted_pixels() -> None:
    tagged, plain = (
        decode_image(encode(draw_photograph(2, seed=3), "JPEG", **options))
        for options in ({"icc_profile": matrix_profile(2.2)}, {})
    )
    converted = pixels_digest(to_srgb(tagged))
    assert has_digest(tagged, pixels_digest(plain.pixels))
    assert has_digest(tagged, converted)
    assert has_digest(plain, pixels_digest(plain.pixels))
    assert not has_digest(plain, converted)
    assert not has_digest(tagged, "0" * 64)


def test_the_data_digest_depends_on_pixels_and_labels_alone(tmp_path: Path) -> None:
    first = _check(_write(tmp_path / "one", _plain(4)))
    renamed = {f"{file[0]}/renamed_{99 - int(file[2:5])}.png": image for file, image in _plain(4).items()}
    assert _check(_write(tmp_path / "two" / "deep", renamed)).digest == first.digest
    shutil.move(tmp_path / "one" / "a" / "000.png", tmp_path / "one" / "b" / "moved.png")
    assert _check(tmp_path / "one").digest != first.digest


def test_the_report_is_the_same_bytes_in_every_place(tmp_path: Path) -> None:
    images = _plain(4) | {"a/broken.jpg": b"x", "a/again.png": _noise(2)}
    first, second = (_check(_write(tmp_path / place, images)).to_dict() for place in ("one", "two"))
    assert first == second
    report = json.loads(json.dumps(first))
    assert report["class_sizes"] == {"a": 4, "b": 4}
    assert {finding["kind"] for finding in report["findings"]} == {"not-an-image", "duplicate", "small-class"}
    assert str(tmp_path) not in json.dumps(first)


def test_progress_counts_every_file(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    folder = read_folder(_write(tmp_path, _plain(4) | {"a/broken.jpg": b"x"}))
    check_folder(folder, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 9) for done in range(1, 10)]


@pytest.mark.photographs
def test_the_known_flaws_of_flower_photos_are_found(real_check: DataCheck) -> None:
    named = _named(real_check)
    assert [finding for finding in named if finding[0] in ("two-labels", "duplicate")] == [
        ("two-labels", ("roses/15922772266_1167a06620.jpg", "tulips/15922772266_1167a06620.jpg")),
        ("duplicate", ("sunflowers/15066430311_fb57fa92b0_m.jpg",)),
        ("duplicate", ("sunflowers/15072973261_73e2912ef2_n.jpg",)),
    ]
    assert {kind for kind, _ in named} == {"two-labels", "duplicate", "near-duplicates"}


@pytest.mark.photographs
def test_near_duplicates_in_flower_photos_never_cross_classes(real_check: DataCheck) -> None:
    # All 27 groups were looked at: each is one scene (see NEAR_DUPLICATE_BITS).
    groups = real_check.near_duplicates
    assert 20 <= len(groups) <= 40
    assert all(len({photograph.label for photograph in group}) == 1 for group in groups)
    assert max(len(group) for group in groups) <= 5


def test_want_of_memory_is_no_finding_of_a_photograph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _write(tmp_path, _plain())
    monkeypatch.setattr(ImageFile.ImageFile, "load", Mock(side_effect=MemoryError))
    with pytest.raises(OutOfMemory, match="There is not enough memory"):
        _check(folder)


def test_a_huge_file_is_read_to_the_limit(tmp_path: Path) -> None:
    (tmp_path / "roses").mkdir()
    (tmp_path / "roses" / "huge.jpg").touch()
    os.truncate(tmp_path / "roses" / "huge.jpg", 2**30)
    (tmp_path / "tulips").mkdir()
    (tmp_path / "tulips" / "1.jpg").write_bytes(encode(draw_photograph(0, seed=1)))
    folder, limits = read_folder(tmp_path), ImageLimits(max_image_bytes=1_000_000)
    assert growth_bytes(lambda: check_folder(folder, limits)) < 100_000_000
