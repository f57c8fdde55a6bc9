"""`flowers train` asked wrongly or failing: one clear sentence, the right exit code, nothing half-written."""

import json
import os
import resource
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.drawing import draw_folder

from service.cli.main import main
from service.data.cache import PixelCache
from service.data.check import DataCheck, check_folder
from service.data.dataset import Dataset
from service.errors import DatasetError
from service.evaluation.metrics import evaluate
from service.training.checkpoint import Epoch
from service.training.observer import Observer
from service.training.plan import Budget
from service.training.recipe import Recipe
from service.training.run import Run
from service.training.train import Trained

ANY = ("--seed", "2", "--device", "cpu")
PLAIN = (*ANY, "--teacher", "none")
QUICK = ("--epochs", "1", "--teacher", "none", "--batch-size", "32", "--seed", "2", "--device", "cpu")


@pytest.fixture
def places(tmp_path: Path) -> tuple[str, ...]:
    """Flags that keep store, runs and cache inside `tmp_path`."""
    return (
        *("--model-store", str(tmp_path / "store")),
        *("--runs", str(tmp_path / "runs")),
        *("--cache", str(tmp_path / "cache")),
    )


def assert_one_sentence(error: str, said: str) -> None:
    last = error.strip().splitlines()[-1]
    assert last.startswith("flowers: ")
    assert said in last
    assert "Traceback" not in error


def test_a_missing_folder_is_asked_wrongly(
    tmp_path: Path, places: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(tmp_path / "nowhere"), *places]) == 2
    assert_one_sentence(capsys.readouterr().err, "nowhere")
    assert not (tmp_path / "store").exists()


def test_one_class_is_asked_wrongly(
    tmp_path: Path, places: tuple[str, ...], drawn_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(drawn_folder / "roses", tmp_path / "photos" / "roses")
    assert main(["train", str(tmp_path / "photos"), *places]) == 2
    assert_one_sentence(capsys.readouterr().err, "class")


def test_an_empty_class_is_asked_wrongly_and_named(
    tmp_path: Path, places: tuple[str, ...], drawn_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(drawn_folder, tmp_path / "photos")
    (tmp_path / "photos" / "orchids").mkdir()
    assert main(["train", str(tmp_path / "photos"), *places]) == 2
    assert_one_sentence(capsys.readouterr().err, "orchids")


HEIC = struct.pack(">I4s4sI4s", 24, b"ftyp", b"heic", 0, b"mif1") + b"\0" * 500


def test_unreadable_photographs_are_named_before_and_in_the_error(
    tmp_path: Path,
    places: tuple[str, ...],
    drawn_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    shutil.copytree(drawn_folder / "roses", tmp_path / "photos" / "roses")
    (tmp_path / "photos" / "tulips").mkdir()
    for number in range(3):
        (tmp_path / "photos" / "tulips" / f"{number}.HEIC").write_bytes(HEIC)
    assert main(["train", str(tmp_path / "photos"), *places, *QUICK]) == 2
    error = capsys.readouterr().err
    assert_one_sentence(error, "3 of 3 files of tulips cannot be used. not-an-image holds for 3, such as tulips/0.HEIC")
    assert all(f"not-an-image: tulips/{number}.HEIC. " in error for number in range(3))


def test_an_error_of_the_split_names_lost_photographs(
    tmp_path: Path,
    places: tuple[str, ...],
    drawn_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    shutil.copytree(drawn_folder, tmp_path / "photos")
    for path in sorted((tmp_path / "photos" / "tulips").iterdir())[1:]:
        path.write_bytes(HEIC)
    assert main(["train", str(tmp_path / "photos"), *places, *QUICK]) == 2
    error = capsys.readouterr().err
    assert_one_sentence(error, "tulips")
    assert "11 of 60 files cannot be used. not-an-image holds for 11" in error.splitlines()[-1]
    assert "not-an-image: tulips/001.jpg. " in error


def test_an_unwritable_store_fails_before_the_training(
    tmp_path: Path, places: tuple[str, ...], drawn_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "store").write_text("a file where the store should be")
    assert main(["train", str(drawn_folder), *places, *QUICK]) == 1
    error = capsys.readouterr().err
    assert_one_sentence(error, "store")
    assert "epoch 1" not in error


def test_a_missing_gpu_fails_with_the_reason(
    places: tuple[str, ...], drawn_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine may have a GPU")
    assert main(["train", str(drawn_folder), *places, "--device", "gpu"]) == 1
    assert_one_sentence(capsys.readouterr().err, "GPU")


def test_an_unknown_teacher_is_refused_before_the_check(
    places: tuple[str, ...], drawn_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(drawn_folder), *places, "--device", "cpu", "--teacher", "foo"]) == 2
    assert capsys.readouterr().err.startswith("flowers: There is no teacher 'foo'")  # and no bar before it


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--recipe", "transfer", "--outliers", "."), "--outliers is for an AlexNet"),
        (("--recipe", "transfer", "--begin-with", "1"), "--begin-with is for an AlexNet"),
        (("--recipe", "robust", "--outliers", "nowhere"), "There is no folder nowhere"),
    ],
)
def test_outliers_and_begin_with_are_checked_first(
    given: tuple[str, ...], said: str, places: tuple[str, ...], drawn_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    assert main(["train", str(drawn_folder), *places, *ANY, *given]) == 2
    assert_one_sentence(capsys.readouterr().err, said)


def test_an_unfit_name_is_refused_before_the_reading(
    tmp_path: Path, places: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(tmp_path / "nowhere"), *places, "--name", "../x"]) == 2
    assert_one_sentence(capsys.readouterr().err, "'../x' cannot be the name of a model. Give it 1 to 64 letters")


@dataclass
class Asked:
    """What trainings were begun with. None is done, and each seems to end so."""

    names: list[str] = field(default_factory=list)
    recipes: list[Recipe] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    caches: list[PixelCache | None] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    budgets: list[Budget | None] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    takes: list[bool | None] = field(default_factory=list)
    outliers: list[tuple[list[str], dict[str, list[str]]]] = field(default_factory=list)
    interrupted: bool = False
    is_exported: bool = True


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, drawn_folder: Path) -> Asked:
    """The data set is the drawn one."""
    asked = Asked()

    def begin(
        dataset: Dataset, recipe: Recipe, run: Run, observer: Observer, *,
        why: str, budget: Budget | None, take: bool | None,
    ) -> Trained | None:  # fmt: skip
        asked.reasons.append(why)
        asked.takes.append(take)
        held_out = {name: [path.name for path in paths] for name, paths in dataset.held_out_sources.items()}
        asked.outliers.append(([path.name for path in dataset.outliers], held_out))
        asked.budgets.append(budget)
        asked.names.append(run.model)
        asked.recipes.append(recipe)
        asked.seeds.append(dataset.seed)
        asked.caches.append(dataset.cache)
        asked.folders.append(dataset.check.photographs[0].path.parent.parent)
        evaluation = evaluate(np.eye(2, dtype=np.float32), np.arange(2), ["daisy", "roses"])
        epoch = Epoch(39, 1.0, 0.5, None, None, 1e-3, 2.0, 6.0)
        trained = Trained(run.model, 1, run.device, run.folder, (epoch,), asked.interrupted, evaluation)
        return trained if asked.is_exported else None

    monkeypatch.setattr("service.training.train.train", begin)
    monkeypatch.setattr("service.data.fetch.fetch", lambda *_: drawn_folder)
    return asked


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ((), "drawn_flowers"),
        (("--recipe", "article"), "drawn_flowers"),
        (("--recipe", "article", "--name", "garden"), "garden"),
    ],
)
def test_a_model_is_named_after_its_folder_not_recipe(
    flags: tuple[str, ...], name: str, asked: Asked, places: tuple[str, ...], drawn_folder: Path
) -> None:
    assert main(["train", str(drawn_folder), *places, *flags, *ANY]) == 0
    assert asked.names == [name]
    assert [recipe.name for recipe in asked.recipes] == ["article" if flags else "default"]  # of the five flowers


@pytest.mark.parametrize(("flags", "name"), [((), "flowers"), (("--recipe", "article"), "article")])
def test_without_a_folder_the_recipe_names_the_model(
    flags: tuple[str, ...], name: str, asked: Asked, places: tuple[str, ...], drawn_folder: Path
) -> None:
    assert main(["train", *places, *flags, *ANY]) == 0
    assert (asked.names, asked.folders) == ([name], [drawn_folder])
    assert [recipe.name for recipe in asked.recipes] == [name if flags else "default"]


@pytest.mark.parametrize(
    ("flags", "recipe", "network"),
    [
        ((), "transfer", "efficientnet_lite0"),
        (("--name", "flowers"), "default", "alexnet_v2"),
        (("--teacher", "none"), "default", "alexnet_v2"),
        (("--name", "flowers", "--network", "efficientnet_lite2"), "transfer", "efficientnet_lite2"),
    ],
)
def test_own_classes_get_a_pretrained_network_by_default(
    flags: tuple[str, ...], recipe: str, network: str,
    asked: Asked, tmp_path: Path, places: tuple[str, ...], drawn_folder: Path,
) -> None:  # fmt: skip
    for flower, own in (("daisy", "white"), ("roses", "red")):
        shutil.copytree(drawn_folder / flower, tmp_path / "colours" / own)
    assert main(["train", str(tmp_path / "colours"), *places, *flags, *ANY]) == 0
    assert [(one.name, one.network) for one in asked.recipes] == [(recipe, network)]
    assert asked.names == ["flowers" if "flowers" in flags else "colours"]


@pytest.mark.parametrize(("flags", "take"), [((), None), (("--take",), True), (("--no-take",), False)])
def test_take_and_its_opposite_overrule_the_gate(
    flags: tuple[str, ...], take: bool | None, asked: Asked, places: tuple[str, ...], drawn_folder: Path
) -> None:
    assert main(["train", str(drawn_folder), *places, *flags, *PLAIN]) == 0
    assert asked.takes == [take]
    assert asked.reasons == ["--teacher was given, and only AlexNet has one."]


def test_a_network_of_another_recipe_is_refused(
    places: tuple[str, ...], drawn_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--recipe", "transfer", "--network", "alexnet_v2")
    assert main(["train", str(drawn_folder), *places, *ANY, *flags]) == 2
    assert_one_sentence(capsys.readouterr().err, "--network is alexnet_v2. The recipe transfer trains an")


def test_training_keeps_the_limits_of_an_image(
    monkeypatch: pytest.MonkeyPatch, places: tuple[str, ...], drawn_folder: Path
) -> None:
    """No photograph of the folder is that small, so that each is a finding."""
    found: list[str] = []

    def check(*given: Any) -> DataCheck:
        result = check_folder(*given)
        found.extend(finding.detail for finding in result.findings if finding.kind == "image-too-large")
        raise DatasetError("enough")

    monkeypatch.setattr("service.data.dataset.check_folder", check)
    monkeypatch.setenv("FLOWERS_MAX_IMAGE_PIXELS", "1024")
    assert main(["train", str(drawn_folder), *places, "--device", "cpu", "--teacher", "none"]) == 2
    assert found
    assert all("pixels to decode. Up to 1,024 are taken. Send a smaller copy" in words for words in found)
    assert not any("server" in words for words in found)


def test_the_table_is_not_cut_in_a_pipe(
    asked: Asked, places: tuple[str, ...], drawn_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "a_garden_with_so_long_a_name_that_no_terminal_has_room_for_it"
    assert main(["train", str(drawn_folder), *places, "--name", name, *PLAIN]) == 0
    assert any(name in line and "100.00 % (2 of 2)" in line for line in capsys.readouterr().out.splitlines())


def test_each_flag_reaches_the_training(asked: Asked, places: tuple[str, ...], drawn_folder: Path) -> None:
    flags = (
        "--network",
        "alexnet_v1",
        "--epochs",
        "7",
        "--batch-size",
        "9",
        "--teacher",
        "none",
        "--recipe",
        "patient",
    )
    assert main(["train", str(drawn_folder), *places, *flags, *ANY]) == 0
    (recipe,) = asked.recipes
    assert (recipe.name, recipe.network, recipe.backbones) == ("patient", "alexnet_v1", ())
    assert (recipe.schedule.epochs, recipe.schedule.batch_size) == (7, 9)
    assert asked.seeds == [2]


def test_outliers_are_learned_and_held_out_sources_are_not(
    asked: Asked, places: tuple[str, ...], drawn_folder: Path, tmp_path: Path
) -> None:
    for name in ("cars/1.png", "cars/2.png", "animals/3.png"):
        (tmp_path / "others" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (300, 300)).save(tmp_path / "others" / name)
    flags = ("--recipe", "robust", "--outliers", str(tmp_path / "others"))
    assert main(["train", str(drawn_folder), *places, *flags, *PLAIN]) == 0
    assert main(["train", str(drawn_folder), *places, *PLAIN]) == 0
    assert asked.outliers == [(["1.png", "2.png"], {"animals": ["3.png"]}), ([], {})]


@pytest.mark.parametrize(("memory_bytes", "is_told"), [(100, True), (10**15, False)])
def test_photographs_larger_than_memory_go_to_the_cache(
    memory_bytes: int, is_told: bool, asked: Asked, places: tuple[str, ...], drawn_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("service.data.cache.memory_left", lambda: memory_bytes)
    assert main(["train", str(drawn_folder), *places, *PLAIN, "--max-decoded-bytes", "5000"]) == 0
    folder = tmp_path / "cache" / "decoded"
    assert asked.caches == [PixelCache(folder, 5000)]
    assert (f"do not fit into memory. They are kept in {folder}." in capsys.readouterr().err) is is_told


@pytest.mark.parametrize("interrupted", [True, False])
def test_the_result_says_whether_the_training_was_interrupted(
    interrupted: bool, asked: Asked, places: tuple[str, ...], drawn_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked.interrupted = interrupted
    assert main(["train", str(drawn_folder), *places, *PLAIN, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["interrupted"], row["epochs"], row["device"]) == (interrupted, 40, "cpu")
    assert main(["train", str(drawn_folder), *places, *PLAIN]) == 0
    assert ("(interrupted)" in capsys.readouterr().out) == interrupted


def test_ctrl_c_says_what_is_kept(
    asked: Asked, places: tuple[str, ...], drawn_folder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def press(dataset: Dataset, recipe: Recipe, run: Run, observer: Observer, **_: Any) -> None:
        observer.stage("loading efficientnet_lite2")
        (run.folder / "lesson.npz").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("service.training.train.train", press)
    assert main(["train", str(drawn_folder), *places, *ANY, "--teacher", "none"]) == 1
    printed = capsys.readouterr()
    assert_one_sentence(printed.err, "Interrupted (loading efficientnet_lite2).")
    assert printed.err.strip().endswith("keeps the teacher's answers. The same command goes on.")
    assert printed.out == ""


def test_ctrl_c_during_the_check_begins_anew(
    places: tuple[str, ...], drawn_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def press(_: object, __: object, checking: Any) -> None:
        checking(1, 60)
        raise KeyboardInterrupt

    monkeypatch.setattr("service.data.dataset.check_folder", press)
    assert main(["train", str(drawn_folder), *places, *ANY, "--teacher", "none"]) == 1
    assert_one_sentence(capsys.readouterr().err, "Interrupted (checking). No training has begun.")


def test_minutes_are_of_the_whole_command(asked: Asked, places: tuple[str, ...], drawn_folder: Path) -> None:
    assert main(["train", str(drawn_folder), *places, *ANY, "--teacher", "none", "--minutes", "10"]) == 0
    (budget,) = asked.budgets
    assert budget is not None
    assert 0 < 10 - budget.minutes < 5, "the check took its share"


def test_a_training_without_export_prints_no_version(
    asked: Asked, places: tuple[str, ...], drawn_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked.is_exported = False
    assert main(["train", str(drawn_folder), *places, *PLAIN]) == 0
    assert capsys.readouterr().out == ""
    assert main(["train", str(drawn_folder), *places, *PLAIN, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ("installed", "chosen", "recipe", "backend"),
    [
        ({"tensorflow"}, "jax", "patient", "tensorflow"),
        ({"tensorflow", "jax"}, "jax", "patient", "jax"),
        ({"tensorflow", "jax"}, "jax", "default", "tensorflow"),
        ({"tensorflow", "jax"}, "", "patient", "tensorflow"),
        ({"jax"}, "", "default", "jax"),
        (set(), "torch", "default", "tensorflow"),
    ],
)
def test_keras_computes_on_jax_if_wanted_or_alone(
    installed: set[str], chosen: str, recipe: str, backend: str,
    asked: Asked, places: tuple[str, ...], drawn_folder: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("service.cli.train.find_spec", lambda name: name in installed or None)
    monkeypatch.setenv("KERAS_BACKEND", chosen)
    flags = ("--recipe", recipe, "--teacher", "none")
    assert main(["train", str(drawn_folder), *places, *flags, *ANY]) == 0
    assert os.environ["KERAS_BACKEND"] == backend


@pytest.mark.long
def test_a_full_disk_ends_the_training_with_one_sentence(
    tmp_path: Path, places: tuple[str, ...], drawn_folder: Path
) -> None:
    def fill_disk() -> None:  # no file of this process may pass 2 MB, as on a disk that fills up
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

    process = subprocess.run(
        [sys.executable, "-m", "service", "train", str(drawn_folder), *places, *QUICK],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=fill_disk,
    )
    assert process.returncode == 1
    assert_one_sentence(process.stderr, "could not be written")
    assert not list((tmp_path / "store").rglob("saved_model.pb"))


@pytest.mark.long
def test_a_broken_photograph_is_named_and_left_out(
    tmp_path: Path, places: tuple[str, ...], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.training.alexnet.MIN_EPOCH", 1)  # a folder is seen once in an epoch, however small
    monkeypatch.setenv("COLUMNS", "200")
    photos = draw_folder(tmp_path / "my_garden", photographs_per_class=12)
    (photos / "roses" / "broken.jpg").write_bytes((photos / "roses" / "000.jpg").read_bytes()[:2000])
    assert main(["train", str(photos), *places, *QUICK, "--json"]) == 0
    printed = capfd.readouterr()
    assert "roses/broken.jpg" in printed.err
    (result,) = json.loads(printed.out)
    # A person's own classes never become the next version of `flowers`: the model has the folder's name.
    assert (result["model"], result["version"], result["epochs"]) == ("my_garden", 1, 1)
    assert (tmp_path / "store" / "my_garden" / "1" / "saved_model.pb").is_file()
    run = Path(result["run"])
    assert {path.name for path in run.iterdir()} >= {
        "recipe.json", "data_check.json", "split.json", "history.json", "published.json", "report.html",
    }  # fmt: skip
    assert "roses/broken.jpg" in (run / "data_check.json").read_text()
