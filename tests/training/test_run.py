import json
import os
import shutil
import subprocess
import sys
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.data.dataset import Dataset, open_dataset
from service.data.folder import read_folder
from service.errors import TrainingError
from service.imaging.limits import ImageLimits
from service.training.distributed import Cluster
from service.training.recipe import AlexNetRecipe, find_recipe, recipe_values
from service.training.run import Run, name_run, open_run

HOLD = """
import sys
from pathlib import Path
from service.training.run import open_run
with open_run(Path(sys.argv[1]), "garden-1", model="garden", store=Path(sys.argv[1]), device="cpu") as run:
    print(run.folder, flush=True)
    sys.stdin.read()
"""


def opened(folder: Path, name: str = "garden", *, again: bool = False) -> AbstractContextManager[Run]:
    return open_run(folder, name, model="garden", store=folder / "store", device="cpu", again=again)


def finish(folder: Path, **more: object) -> None:
    """Leave what a training leaves whose version 3 is in the store."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / "store" / "garden" / "3").mkdir(parents=True, exist_ok=True)
    (folder / "published.json").write_text(json.dumps({"model": "garden", "version": 3, **more}), encoding="utf-8")


def test_a_second_training_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == f"{tmp_path / 'garden-1'}\n"
        try:
            with pytest.raises(TrainingError, match=rf"process {first.pid}\) is at work .* Another --seed"):
                opened(tmp_path, "garden-1").__enter__()
            with opened(tmp_path, "garden-2") as other:
                assert other.folder == tmp_path / "garden-2"
        finally:
            first.kill()
    with opened(tmp_path, "garden-1") as run:
        assert (run.folder, run.published) == (tmp_path / "garden-1", None)
        assert (run.folder / "lock").read_text() == f"{os.getpid()}\n"


def test_the_chief_alone_locks_the_folder_of_a_cluster(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with opened(tmp_path) as run, open_run(
        tmp_path, "garden", model="garden", store=store, device="cpu", cluster=Cluster(1, 2)
    ) as shared:  # fmt: skip
        assert shared.folder == run.folder
        with (
            pytest.raises(TrainingError, match="at work"),
            open_run(tmp_path, "garden", model="garden", store=store, device="cpu", cluster=Cluster(0, 2)),
        ):
            pass


def test_a_finished_training_is_repeated_only_on_request(tmp_path: Path) -> None:
    finish(tmp_path / "garden")
    with opened(tmp_path) as run:
        assert run.folder == tmp_path / "garden"
        assert run.published is not None
        assert run.published["version"] == 3
    with opened(tmp_path, again=True) as run:
        assert (run.folder, run.published) == (tmp_path / "garden-2", None)
    with opened(tmp_path) as run:
        assert (run.folder, run.published) == (tmp_path / "garden-2", None), "it was begun, and goes on"


def test_a_training_without_its_version_is_trained_anew(tmp_path: Path) -> None:
    finish(tmp_path / "garden")
    shutil.rmtree(tmp_path / "store")
    with opened(tmp_path) as run:
        assert (run.folder, run.published) == (tmp_path / "garden-2", None)


def test_a_training_that_published_when_interrupted_goes_on(tmp_path: Path) -> None:
    finish(tmp_path / "garden", finished=False)
    with opened(tmp_path) as run:
        assert (run.folder, run.published) == (tmp_path / "garden", None)


@pytest.mark.parametrize("content", ["", "[]", "5", "{}", '{"model": "garden", "version": "x"}'])
def test_a_damaged_published_file_is_named_with_a_remedy(content: str, tmp_path: Path) -> None:
    (tmp_path / "garden").mkdir()
    (tmp_path / "garden" / "published.json").write_text(content)
    with pytest.raises(TrainingError, match=r"published\.json cannot be read, or is damaged. Remove"):
        opened(tmp_path).__enter__()


def test_the_name_depends_on_all_that_shapes_the_result(drawn_folder: Path, tmp_path: Path, dataset: Dataset) -> None:
    more = tmp_path / "more"
    shutil.copytree(drawn_folder, more)
    Image.effect_noise((64, 64), 60).convert("RGB").save(more / "roses" / "one_more.png")
    recipe = find_recipe("default", epochs=1)
    assert isinstance(recipe, AlexNetRecipe)
    names = [
        name_run("garden", recipe, dataset, "cpu"),
        name_run("lawn", recipe, dataset, "cpu"),
        name_run("garden", find_recipe("default", epochs=2), dataset, "cpu"),
        name_run("garden", recipe, replace(dataset, split=replace(dataset.split, seed=3)), "cpu"),
        name_run("garden", recipe, open_dataset(read_folder(more), 2, ImageLimits()), "cpu"),
        name_run("garden", replace(recipe, num_folds=4), dataset, "cpu"),
        name_run("garden", replace(recipe, begin_with=1), dataset, "cpu"),
        name_run("garden", recipe, replace(dataset, outliers=(Path("cars/1.jpg"),)), "cpu"),
        name_run("garden", recipe, dataset, "cpu", 10.0),
        name_run("garden", recipe, dataset, "cpu", 20.0),
    ]
    assert len(set(names)) == len(names)
    assert name_run("garden", recipe, dataset, "gpu") == names[0], "another machine can go on"
    article = find_recipe("article")
    assert name_run("garden", article, dataset, "gpu") != name_run("garden", article, dataset, "cpu")


def test_the_name_depends_on_a_sequences_file_names(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    scene = random.integers(30, 220, (48, 64, 3))
    frames = [Image.fromarray((scene + random.normal(0, 4, scene.shape)).astype(np.uint8)) for _ in range(20)]
    names = []
    for folder, numbers in (("one", range(20)), ("two", range(20, 0, -1))):
        for number, (name, frame) in enumerate(zip(numbers, frames, strict=True)):
            path = tmp_path / folder / "ab"[number % 2] / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            frame.save(path)
        found = open_dataset(read_folder(tmp_path / folder), 2, ImageLimits())
        names.append(name_run("bench", find_recipe("default"), found, "cpu"))
    assert len(set(names)) == 2


def test_the_name_depends_on_the_given_split(drawn_folder: Path, tmp_path: Path) -> None:
    names = []
    for folder, parts in (("one", ("train", "val", "test")), ("two", ("test", "val", "train"))):
        for place, part in enumerate(parts):
            for label in ("roses", "tulips"):
                (tmp_path / folder / part / label).mkdir(parents=True)
                for number in range(2):  # the file names are the same in each part
                    source = drawn_folder / label / f"{3 * number + place:03d}.jpg"
                    shutil.copy(source, tmp_path / folder / part / label / f"{number}.jpg")
        datasets = [open_dataset(read_folder(tmp_path / folder), 2, ImageLimits()) for _ in range(2)]
        first, again = (name_run("garden", find_recipe("default"), found, "cpu") for found in datasets)
        assert first == again
        names.append((datasets[0].check.digest, first))
    assert names[0][0] == names[1][0]
    assert names[0][1] != names[1][1]


def test_a_run_remembers_the_device_that_it_began_on(tmp_path: Path, dataset: Dataset) -> None:
    recipe = find_recipe("default")
    first, second = (Run(tmp_path, "garden", tmp_path, device) for device in ("gpu", "cpu"))
    assert second.began_on == "cpu"
    first.describe(recipe, dataset)
    second.describe(recipe, dataset)
    assert second.began_on == "gpu"
    written = json.loads((tmp_path / "recipe.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps({**recipe_values(recipe), "seed": 2, "device": "gpu"}))
    (tmp_path / "recipe.json").write_text("[")
    assert second.began_on == "cpu"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, dataset: Dataset) -> None:
    (tmp_path / "split.json").mkdir()
    with pytest.raises(TrainingError, match=r"split\.json cannot be written: Is a directory"):
        Run(tmp_path, "garden", tmp_path, "cpu").describe(find_recipe("default"), dataset)
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot be made"):
        Run(tmp_path / "file" / "run", "garden", tmp_path, "cpu").make()
