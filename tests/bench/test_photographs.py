from pathlib import Path

import pytest
from support.drawing import draw_folder

from service.bench.photographs import as_form, draw_flower, read_photographs
from service.errors import InvalidParameter
from service.imaging.decode import decode_image


def test_the_drawn_flower_is_a_photograph_of_ordinary_size() -> None:
    flower = draw_flower()
    assert decode_image(flower).pixels.shape == (333, 500, 3)
    assert 10_000 < len(flower) < 200_000


def test_a_large_folder_is_sampled_evenly(tmp_path: Path) -> None:
    folder = draw_folder(tmp_path / "photographs", photographs_per_class=15, size=(32, 24))
    (folder / "notes.txt").write_text("not a photograph")
    files = {file.read_bytes(): file.parent.name for file in folder.glob("*/*.jpg")}
    taken = read_photographs(folder, (".jpg",))
    assert len(set(taken)) == len(taken) <= 64
    assert {files[photograph] for photograph in taken} == set(files.values())


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="holds no image"):
        read_photographs(tmp_path, (".jpg",))
    with pytest.raises(InvalidParameter, match="cannot be read"):
        read_photographs(tmp_path / "missing.jpg", (".jpg",))


def test_a_form_carries_the_file_in_its_field() -> None:
    body, content_type = as_form(b"bytes", field="images")
    boundary = content_type.partition("boundary=")[2].encode()
    assert body.count(b"--" + boundary) == 2
    assert b'name="images"' in body
    assert b"\r\n\r\nbytes\r\n--" in body


def test_64_files_of_a_folder_are_all_taken(tmp_path: Path) -> None:
    names = [f"{number}{'.jpg' if number % 2 else '.JPG'}" for number in range(64)]
    for name in names:
        (tmp_path / name).write_text(name)
    assert sorted(read_photographs(tmp_path, (".jpg",))) == sorted(name.encode() for name in names)
