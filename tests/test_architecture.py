"""The imports follow the arrows of the map, and nobody below reads what only the edges may know."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

SERVICE = Path(__file__).resolve().parent.parent / "service"

ARROWS = {
    "errors": set(),
    "installation": set(),
    "libraries": set(),
    "logs": set(),
    "machine": set(),
    "ranking": {"errors"},
    "files": {"errors"},
    "http_client": {"errors"},
    "platforms": {"errors", "store"},
    "setting_sources": {"platforms"},
    "setting_types": {"engines", "remote_store"},
    "setting_checks": {"errors", "setting_sources", "settings"},
    "settings": {"errors", "imaging", "engines", "store", "remote_store", "platforms", "setting_sources",
 "setting_types"},
    "imaging": {"errors", "machine"},
    "data": {"errors", "files", "http_client", "imaging", "machine"},
    "networks": {"errors", "files", "installation"},
    "store": {"errors", "files"},
    "remote_store": {"errors", "files", "http_client", "store"},
    "bench": {"errors", "http_client"},
    "client": {"errors", "files", "http_client", "ranking"},
    "wire": {"errors"},
    "workers": {"errors", "machine", "store", "logs", "wire"},
    "engines": {"errors", "installation", "imaging", "ranking", "store", "machine"},
    "evaluation": {"errors", "files", "imaging", "data", "engines", "ranking", "store", "machine"},
    "scoring": {"errors", "files", "machine", "imaging", "engines", "evaluation", "ranking", "store"},
    "training": {
        "errors", "files", "machine", "imaging", "data", "networks", "engines", "ranking", "store", "evaluation",
    },
    "inference": {"errors", "files", "imaging", "engines", "store", "machine"},
    "api": {
        "wire", "errors", "machine", "ranking", "settings", "inference", "engines", "imaging", "store", "remote_store",
    },
    "cli": {
        "errors", "files", "libraries", "setting_checks", "setting_sources", "settings", "machine", "imaging", "data",
        "networks",
        "store", "engines", "evaluation", "training", "inference", "api", "bench", "logs", "wire", "workers",
        "http_client", "installation", "ranking", "client", "remote_store", "scoring",
    },
}  # fmt: skip
"""room -> the rooms whose modules it may import, its own apart."""

KNOWN_BY = {
    "tensorflow": {
        "training/distributed.py", "training/export/saved_model.py", "training/export/portable.py",
        "engines/savedmodel.py",
    },
    "jax": {"training/fit_on_device.py"},
    "onnxruntime": {
        "training/export/int8.py", "training/export/onnx_graph.py", "training/export/portable.py",
        "engines/onnx_runtime.py",
    },
    "onnx": {
        "training/export/int8.py", "training/export/light_model.py", "training/export/onnx_graph.py",
        "training/export/portable.py",
    },
    "uvicorn": {"wire/head_guard.py", "wire/server.py"},
    "ray": {"scoring/ray.py"},
    "fsspec": {"remote_store/bucket.py", "scoring/storage.py"},
    "pyarrow": {"scoring/parts.py", "scoring/sources.py"},
    "httptools": {"bench/connection.py", "wire/head_guard.py"},
}  # fmt: skip
"""library -> the only modules that may import it: what serves must not bring what trains. The app knows no server."""

KEPT_QUIET = {"onnxruntime", "tensorflow", "keras", "matplotlib"}
"""libraries that connect or write files when they are imported, unless `service` was imported before"""

READ_SETTINGS = {"cli", "api/app.py", "setting_checks.py"}
MODULES = sorted(path.relative_to(SERVICE).as_posix() for path in SERVICE.rglob("*.py"))
REPOSITORY = SERVICE.parent
CONFTEST = "tests/conftest.py"  # comes before each test
SCRIPTS = [
    CONFTEST,
    *sorted(
        path.relative_to(REPOSITORY).as_posix()
        for folder in ("benchmarks", "docker", "docs")
        for path in (REPOSITORY / folder).rglob("*.py")
        if "peers" not in path.parts  # those have environments of their own
    ),
]


def imported_modules(module: str) -> set[str]:
    """Every module that the file imports anywhere in it, functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((SERVICE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute here"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names if node.module == "service")
    return names


def room_of(module: str) -> str:
    return module.split("/")[0].removesuffix(".py")


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_arrows(module: str) -> None:
    room = room_of(module)
    if room in ("__init__", "__main__"):
        return
    rooms = {name.split(".")[1] for name in imported_modules(module) if name.startswith("service.")}
    strangers = rooms - ARROWS[room] - {room, "__version__"}
    assert not strangers, f"{module} must not import {strangers}"


@pytest.mark.parametrize("library", KNOWN_BY)
@pytest.mark.parametrize("module", MODULES)
def test_only_an_engine_and_the_export_know_a_runtime(module: str, library: str) -> None:
    knows = any(name.split(".")[0] == library for name in imported_modules(module))
    assert not knows or module in KNOWN_BY[library]


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_import_the_package_before_libraries_it_keeps_quiet(script: str) -> None:
    tree = ast.parse((REPOSITORY / script).read_text(encoding="utf-8"))
    first_of_libraries = min((line for name, line in imports_in(ast.walk(tree)) if name in KEPT_QUIET), default=None)
    first_of_package = min((line for name, line in imports_in(tree.body) if name == "service"), default=None)
    if first_of_libraries is not None or script == CONFTEST:
        assert first_of_package is not None, f"{script}: import service"
        assert first_of_libraries is None or first_of_package < first_of_libraries, f"{script}: import service earlier"


def imports_in(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, int]]:
    """The top-level package and the line of each import statement among the nodes."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0], node.lineno


@pytest.mark.parametrize("module", MODULES)
def test_only_the_edges_read_settings(module: str) -> None:
    reads = any(name.startswith("service.settings") for name in imported_modules(module))
    assert not reads or module in READ_SETTINGS or room_of(module) in READ_SETTINGS


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is_for(module: str) -> None:
    tree = ast.parse((SERVICE / module).read_text(encoding="utf-8"))
    assert ast.get_docstring(tree) or not tree.body, f"{module} has no docstring"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_holds_one_subject(module: str) -> None:
    num_lines = len((SERVICE / module).read_text(encoding="utf-8").splitlines())
    assert num_lines <= 300, f"{module} has {num_lines} lines: it holds two subjects"


def test_no_drawer_is_called_utils() -> None:
    drawers = {"utils", "helpers", "common", "misc"}
    assert not [module for module in MODULES if drawers & set(module.removesuffix(".py").split("/"))]


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_its_mirror(module: str) -> None:
    path = Path(module)
    if path.stem in ("__init__", "__main__") or path.parent.name == "recipes":  # `test_recipe.py` holds their values
        return
    assert (REPOSITORY / "tests" / path.parent / f"test_{path.name}").exists()


@pytest.mark.parametrize("test", sorted((REPOSITORY / "tests").rglob("test_*.py")), ids=lambda path: path.stem)
def test_tests_touch_no_private_members(test: Path) -> None:
    private = {
        node.attr
        for node in ast.walk(ast.parse(test.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__")
        if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "os", "sys"))
    }
    assert not private
