"""Virtual environments of the peers, from hash-locked requirements, in a cache folder outside the repository."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

PEERS = Path(__file__).with_name("peers")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "flowers" / "serving_benchmark"
_COMPILE = (
    *("uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"),
    *("--no-emit-index-url", "--custom-compile-command", "python -m benchmarks.serving --lock"),
)


def prepare(peer: str) -> Path:
    """Return the Python of a peer's environment. It is installed when it is new or its lock has changed."""
    lock = PEERS / peer / "requirements.txt"
    digest = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = CACHE / f"{peer}-{digest}"
    python = folder / "bin" / "python"
    stamp = folder / "complete"
    if not stamp.exists():
        print(f"installing the environment of {peer}", file=sys.stderr, flush=True)
        for older in CACHE.glob(f"{peer}-[0-9a-f]*"):
            if len(older.name) == len(folder.name):
                shutil.rmtree(older)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(lock)]
        subprocess.run(pip, check=True)
        stamp.touch()
    return python


def lock_all() -> None:
    """Write every `requirements.txt` anew from its `requirements.in`. This needs uv."""
    for wishes in sorted(PEERS.glob("*/requirements.in")):
        subprocess.run([*_COMPILE, wishes.name, "-o", "requirements.txt"], cwd=wishes.parent, check=True)


def installed_versions(peer: str) -> dict[str, str]:
    """Return the versions of the packages that a peer's `requirements.in` names."""
    wishes = (PEERS / peer / "requirements.in").read_text(encoding="utf-8").splitlines()
    wanted = {re.split(r"[^\w.-]", wish)[0] for wish in wishes}
    (packages,) = prepare(peer).parent.parent.glob("lib/python*/site-packages")
    installed = distributions(path=[str(packages)])
    found = {package.name.lower().replace("_", "-"): package.version for package in installed}
    return {name: version for name, version in sorted(found.items()) if name in wanted}
