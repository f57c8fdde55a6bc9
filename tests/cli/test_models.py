import json
import os
import shutil
from pathlib import Path

import pytest
from support.versions import example_metadata, publish_example

from service.cli.main import main
from service.store.layout import METADATA_FILE, PINNED_FILE
from service.store.versions import find_served, list_versions, resolve_version

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("published") / "store"
    for model in ("flowers", "flowers", "flowers", "birds"):
        publish_example(store, model)
    return store


@pytest.fixture
def store(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three versions of `flowers` and one of `birds`, in the store that the environment names."""
    shutil.copytree(published, tmp_path / "store")
    monkeypatch.setenv("FLOWERS_MODEL_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


def run(*arguments: str, capsys: Capture) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of `flowers models ...`."""
    exit_code = main(["models", *arguments])
    captured = capsys.readouterr()
    return exit_code, captured.out, captured.err


def test_list_shows_version_mark_date_network_accuracy_and_size(store: Path, capsys: Capture) -> None:
    exit_code, out, err = run("list", capsys=capsys)
    rows = [line.replace("│", " ").split() for line in out.splitlines() if "│" in line]
    shown = ["2026-01-02", "alexnet_v2", "85.0%", "test", "0.0", "MB"]
    assert rows == [["birds", "1", "newest", *shown]] + [
        ["flowers", str(version), *(["newest"] if version == 3 else []), *shown] for version in (1, 2, 3)
    ]
    assert (exit_code, err) == (0, "")


def test_the_size_is_in_millions_of_bytes(store: Path, capsys: Capture) -> None:
    (store / "birds" / "1" / "more").touch()
    os.truncate(store / "birds" / "1" / "more", 3_000_000)
    assert " 3.0 MB" in run("list", "--model", "birds", capsys=capsys)[1]


def test_the_pinned_version_is_marked_as_such(store: Path, capsys: Capture) -> None:
    assert run("use", "2", capsys=capsys)[0] == 0
    _, out, _ = run("list", "--model", "flowers", capsys=capsys)
    rows = [line.replace("│", " ").split() for line in out.splitlines() if "│" in line]
    assert [row[2] for row in rows] == ["2026-01-02", "pinned", "2026-01-02"]


def test_list_json_is_for_programs(store: Path, capsys: Capture) -> None:
    assert run("use", "2", capsys=capsys)[0] == 0
    exit_code, out, _ = run("list", "--json", "--model", "flowers", capsys=capsys)
    rows = json.loads(out)
    folder = store / "flowers" / "2"
    assert rows[1] == {
        "model": "flowers",
        "version": 2,
        "state": "pinned",
        "is_live": True,
        "is_pinned": True,
        "is_candidate": False,
        "created": "2026-01-02T03:04:05+00:00",
        "network": "alexnet_v2",
        "accuracy": 0.85,
        "part": "test",
        "size_bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "problem": None,
    }
    assert [row["version"] for row in rows if row["is_live"]] == [2]
    assert exit_code == 0


def test_a_broken_version_or_pin_hides_no_other(store: Path, capsys: Capture) -> None:
    (store / "flowers" / "1" / METADATA_FILE).unlink()
    (store / "flowers" / PINNED_FILE).write_text("9\n")
    exit_code, out, err = run("list", "--json", "--model", "flowers", capsys=capsys)
    rows = json.loads(out)
    assert [row["version"] for row in rows] == [1, 2, 3]
    assert "metadata.json" in rows[0]["problem"]
    assert not any(row["is_live"] for row in rows)
    assert "pinned to version 9" in err
    assert exit_code == 0
    assert "cannot be read" in run("list", capsys=capsys)[1]


def test_list_marks_the_newest_and_the_damaged_versions(store: Path, capsys: Capture) -> None:
    (store / "flowers" / "3" / "saved_model.pb").write_bytes(b"another")
    exit_code, out, err = run("list", "--model", "flowers", capsys=capsys)
    rows = [line.replace("│", " ").split() for line in out.splitlines() if "│" in line]
    assert [row[:3] for row in rows] == [
        ["flowers", "1", "2026-01-02"],
        ["flowers", "2", "newest"],
        ["flowers", "3", "damaged"],
    ]
    assert err.startswith(
        "flowers: Model flowers passes over a version. Version 3 is not what was published. saved_model.pb was changed"
    )
    assert exit_code == 0
    rows = json.loads(run("list", "--json", "--model", "flowers", capsys=capsys)[1])
    assert [row["is_live"] for row in rows] == [False, True, False]
    assert [row["problem"] is None for row in rows] == [True, True, False]
    assert run("remove", "2", capsys=capsys)[0] == 2
    assert str(store / "flowers" / "2") in run("show", capsys=capsys)[1]
    assert run("use", "latest", capsys=capsys)[1] == "flowers serves its newest version that is sound, 2.\n"


def test_a_pinned_version_that_is_damaged_serves_nothing(store: Path, capsys: Capture) -> None:
    assert run("use", "2", capsys=capsys)[0] == 0
    (store / "flowers" / "2" / "saved_model.pb").write_bytes(b"another")
    _, out, err = run("list", "--model", "flowers", capsys=capsys)
    assert "pinned, damaged" in out
    assert "newest" not in out
    assert "Version 2 is not what was published" in err


def test_use_and_remove_tell_programs_what_they_did(store: Path, capsys: Capture) -> None:
    def tell(*arguments: str) -> object:
        exit_code, out, _ = run(*arguments, "--json", capsys=capsys)
        assert exit_code == 0
        return json.loads(out)

    assert tell("use", "1") == {"model": "flowers", "version": 1, "is_pinned": True}
    assert tell("use", "latest") == {"model": "flowers", "version": 3, "is_pinned": False}
    assert tell("remove", "2") == {"model": "flowers", "version": 2, "is_removed": True}
    (store / "birds" / "1" / "saved_model.pb").write_bytes(b"another")
    assert tell("use", "latest", "--model", "birds") == {"model": "birds", "version": None, "is_pinned": False}


def test_list_shows_candidates_and_how_to_take_them(store: Path, capsys: Capture) -> None:
    for model in ("flowers", "flowers", "birds", "garden"):
        publish_example(store, model, is_candidate=True)
    exit_code, out, err = run("list", capsys=capsys)
    rows = [line.replace("│", " ").split()[:3] for line in out.splitlines() if "│" in line]
    assert [row for row in rows if row[2] == "candidate"] == [
        [model, str(version), "candidate"]
        for model, version in (("birds", 2), ("flowers", 4), ("flowers", 5), ("garden", 1))
    ]
    assert out.splitlines()[-3:] == [
        f"No service serves a candidate. Take one with `flowers models take {arguments}`."
        for arguments in ("2 --model birds", "5", "1 --model garden")
    ]
    assert (exit_code, err) == (0, "")


def test_each_row_has_one_state_for_programs(store: Path, capsys: Capture) -> None:
    for _ in range(2):
        publish_example(store, is_candidate=True)
    (store / "flowers" / "candidates" / "5" / METADATA_FILE).unlink()
    (store / "flowers" / "3" / "saved_model.pb").write_bytes(b"another")

    def states() -> list[str]:
        rows = json.loads(run("list", "--model", "flowers", "--json", capsys=capsys)[1])
        assert [row["is_candidate"] for row in rows] == [False, False, False, True, True]
        return [row["state"] for row in rows]

    assert states() == ["version", "live", "damaged", "candidate", "damaged"]
    assert "candidate, damaged" in run("list", capsys=capsys)[1]
    run("use", "1", capsys=capsys)
    assert states() == ["pinned", "version", "version", "candidate", "damaged"]


def test_take_says_that_the_version_is_served(store: Path, capsys: Capture) -> None:
    publish_example(store, is_candidate=True)
    said = "Version 4 of flowers is taken. A running service switches to it by itself.\n"
    assert run("take", "4", capsys=capsys) == (0, said, "")
    assert find_served(store, "flowers").stored == resolve_version(store, "flowers", 4)


@pytest.mark.parametrize("is_pinned", [True, False])
def test_take_says_which_version_is_served_instead(store: Path, is_pinned: bool, capsys: Capture) -> None:
    publish_example(store, "birds", is_candidate=True)
    if is_pinned:
        run("use", "1", "--model", "birds", capsys=capsys)
    else:
        publish_example(store, "birds")
    served = 1 if is_pinned else 3
    said = (
        f"Version 2 of birds is taken. birds serves version {served} instead. "
        "Serve 2 with `flowers models use 2 --model birds`.\n"
    )
    assert run("take", "2", "--model", "birds", capsys=capsys) == (0, said, "")


def test_take_tells_programs_what_is_live(store: Path, capsys: Capture) -> None:
    for _ in range(2):
        publish_example(store, is_candidate=True)
    answers = [json.loads(run("take", number, "--json", capsys=capsys)[1]) for number in ("5", "4")]
    assert answers == [
        {"model": "flowers", "version": 5, "is_live": True, "live_version": 5},
        {"model": "flowers", "version": 4, "is_live": False, "live_version": 5},
    ]


def test_take_works_beside_a_pin_that_leads_nowhere(store: Path, capsys: Capture) -> None:
    publish_example(store, is_candidate=True)
    (store / "flowers" / PINNED_FILE).write_text("9\n")
    exit_code, out, err = run("take", "4", capsys=capsys)
    remedy = "The pin of flowers names no sound version. Serve 4 with `flowers models use 4`."
    assert out == f"Version 4 of flowers is taken. {remedy}\n"
    assert "is pinned to version 9" in err
    assert exit_code == 0


def test_the_first_candidate_of_a_model_can_be_taken(store: Path, capsys: Capture) -> None:
    publish_example(store, "garden", is_candidate=True)
    exit_code, _, err = run("show", "--model", "garden", capsys=capsys)
    assert exit_code == 1
    assert "Take it with `flowers models take 1 --model garden`" in err
    assert run("take", "1", "--model", "garden", capsys=capsys)[0] == 0
    assert run("show", "--model", "garden", capsys=capsys)[0] == 0


def test_a_candidate_is_shown_verified_and_removed_by_number(store: Path, capsys: Capture) -> None:
    publish_example(store, is_candidate=True)
    folder = store / "flowers" / "candidates" / "4"
    shown = run("show", "4", capsys=capsys)[1]
    assert "version 4 (candidate)" in shown
    assert str(folder) in shown
    assert run("verify", "4", capsys=capsys)[:2] == (0, "Version 4 of flowers is what was published.\n")
    (folder / "saved_model.pb").write_bytes(b"another")
    exit_code, out, _ = run("verify", "--json", capsys=capsys)
    assert [row["version"] for row in json.loads(out) if row["problem"]] == [4]
    assert exit_code == 1
    exit_code, out, err = run("take", "4", capsys=capsys)
    assert (exit_code, out) == (1, "")
    assert "saved_model.pb was changed" in err
    assert run("remove", "4", capsys=capsys) == (0, "Version 4 of flowers is removed.\n", "")
    assert not folder.parent.exists()


def test_show_prints_what_the_version_says_of_itself(store: Path, capsys: Capture) -> None:
    exit_code, out, _ = run("show", capsys=capsys)
    assert exit_code == 0
    assert str(store / "flowers" / "3") in out
    for fact in ("version 3 (newest)", "daisy, dandelion, roses", "85.0% of 20 photographs", "5,797,317"):
        assert fact in out
    assert "version 2 (" not in run("show", "2", capsys=capsys)[1]
    assert json.loads(run("show", "2", "--json", capsys=capsys)[1]) == example_metadata().model_dump(mode="json")


def test_verify_checks_one_version_or_all_of_them(store: Path, capsys: Capture) -> None:
    assert run("verify", capsys=capsys)[0] == 0
    (store / "flowers" / "2" / "saved_model.pb").write_bytes(b"another")
    exit_code, out, _ = run("verify", capsys=capsys)
    assert exit_code == 1
    assert [line for line in out.splitlines() if "saved_model.pb was changed" in line] == out.splitlines()[1:2]
    assert run("verify", "3", capsys=capsys)[:2] == (0, "Version 3 of flowers is what was published.\n")
    exit_code, out, _ = run("verify", "2", "--json", capsys=capsys)
    assert exit_code == 1
    assert json.loads(out)[0]["problem"].startswith("Version 2 is not what was published. saved_model.pb")


def test_use_pins_and_use_latest_unpins(store: Path, capsys: Capture) -> None:
    assert run("use", "1", capsys=capsys)[0] == 0
    assert resolve_version(store, "flowers").version == 1
    assert run("use", "latest", capsys=capsys)[:2] == (0, "flowers serves its newest version, 3.\n")
    assert resolve_version(store, "flowers").version == 3


def test_use_refuses_a_version_that_would_not_be_served(store: Path, capsys: Capture) -> None:
    shutil.rmtree(store / "flowers" / "2" / "variables")
    exit_code, _, err = run("use", "2", capsys=capsys)
    assert exit_code == 1
    assert "variables/variables.index is missing" in err
    assert resolve_version(store, "flowers").version == 3


def test_remove_deletes_and_spares_the_served_version(store: Path, capsys: Capture) -> None:
    assert run("remove", "1", capsys=capsys)[0] == 0
    exit_code, _, err = run("remove", "3", capsys=capsys)
    assert exit_code == 2
    assert "--force" in err
    assert run("remove", "3", "--force", capsys=capsys)[0] == 0
    assert list_versions(store, "flowers") == [2]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (["show", "9"], 1, "Model flowers has no version 9. It has 1, 2, 3"),
        (["use", "9"], 1, "no version 9"),
        (["remove", "9"], 1, "no version 9"),
        (["take", "9"], 1, "no version 9"),
        (["take", "3"], 2, "has a version 3 already. Serve it with `flowers models use 3`"),
        (["take", "newest"], 2, "'newest' is no version"),
        (["take", "1", "--model", "candidates"], 2, "but not 'candidates'"),
        (["verify", "--model", "rosen"], 1, "/store, which has birds, flowers"),
        (["list", "--model", "rosen"], 1, "Model rosen is not in the store"),
        (["show", "--model", "../store/flowers"], 2, "(FLOWERS_MODEL) is '../store/flowers'. Give"),
        (["show", "--version", "2"], 2, "--version"),
        (["use", "newest"], 2, "'newest' is no version"),
        (["show", "01"], 2, "'01' is no version"),
        (["use"], 2, "VERSION"),
        (["use", "1", "2"], 2, "'2' is one word too many. See `flowers models use --help`"),
        (["polish"], 2, "polish"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    store: Path, arguments: list[str], exit_code: int, said: str, capsys: Capture
) -> None:
    code, out, err = run(*arguments, capsys=capsys)
    assert (code, out) == (exit_code, "")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("flags", "out"), [((), ""), (("--json",), "[]\n")])
def test_an_empty_store_is_listed_as_empty(flags: tuple[str, ...], out: str, tmp_path: Path, capsys: Capture) -> None:
    sentence = (
        f"flowers: There is no model in {tmp_path}. Train one with `flowers train`, or name another folder with "
        "--model-store.\n"
    )
    assert run("list", *flags, "--model-store", str(tmp_path), capsys=capsys) == (0, out, sentence)


def test_messages_name_the_whole_path_of_the_store(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["show"], ["verify"], ["use", "1"], ["list"]):
        main(["models", *command, "--model-store", "/nowhere"])
        assert "/nowhere" in capsys.readouterr().err
