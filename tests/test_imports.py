"""Importing a module changes nothing in the process. Only the package itself sets variables, for its libraries."""

import subprocess
import sys

import pytest
from conftest import REPOSITORY

OF_THE_PACKAGE = {"ORT_DISABLE_TELEMETRY", "KERAS_HOME", "MPLCONFIGDIR", "TF_CPP_MIN_LOG_LEVEL"}
"""The libraries read these when they are imported. They keep their telemetry, files and chatter away."""

PROGRAM = """
import ast, gc, importlib, logging, os, pathlib, signal, sys, threading, warnings

before = dict(os.environ)
import service
print(*sorted(name for name in os.environ if os.environ[name] != before.get(name)))

files = sorted(pathlib.Path(service.__file__).parent.rglob("*.py"))
root = pathlib.Path(service.__file__).parent.parent
modules = [".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for file in files]
for file in files:  # the libraries first, since some of them change the process
    for node in ast.walk(ast.parse(file.read_text())):
        imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            imported = [node.module]
        for name in imported:
            if not name.startswith("service"):
                try:
                    importlib.import_module(name)
                except ImportError:
                    pass

def look():
    loggers = {name: logging.getLogger(name).level for name in sorted(logging.root.manager.loggerDict)}
    return {
        "switch interval": sys.getswitchinterval(),
        "collector": (gc.get_threshold(), gc.get_freeze_count(), gc.isenabled(), len(gc.callbacks)),
        "loggers": {name: level for name, level in loggers.items() if level},
        "root logger": (logging.root.level, len(logging.root.handlers), logging.raiseExceptions),
        "variables": dict(os.environ),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "warnings": list(warnings.filters),
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.stdout, sys.stderr),
        "threads": threading.active_count(),
        "umask and folder": (os.getcwd(), os.umask(os.umask(0o22))),
    }

for module in modules:
    if module == "service.__main__":
        continue
    old = look()
    try:
        importlib.import_module(module)
    except ImportError as error:
        assert (error.name or "").partition(".")[0] != "service", error
        continue
    new = look()
    changed = [name for name in old if old[name] != new[name]]
    if changed:
        print(module, changed)
"""


@pytest.mark.long
def test_importing_a_module_changes_nothing_in_the_process() -> None:
    command = [sys.executable, "-c", PROGRAM]
    environment = {"PYTHONPATH": str(REPOSITORY), "HOME": "/home/ada", "PATH": "/usr/bin:/bin"}
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    of_the_package, *of_modules = printed.splitlines()
    assert set(of_the_package.split()) == OF_THE_PACKAGE
    assert of_modules == []
