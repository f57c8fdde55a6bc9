"""A publisher that stops before every operation on the store until it is told to go on, for test_publish.py.

Usage: slow_publisher.py STORE. Before a folder below STORE is made, a file opened or a folder renamed, it
prints a line and waits for one on its standard input; at the end it prints "published N".
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from support.versions import publish_example

STORE = Path(sys.argv[1])
_WATCHED = ("os.mkdir", "open", "os.rename")


def pause(event: str, arguments: tuple[object, ...]) -> None:
    if event in _WATCHED and str(arguments[0]).startswith(str(STORE)):
        print(event, flush=True)
        sys.stdin.readline()


# Python itself announces these operations (PEP 578), so the code under test needs no hooks of its own.
sys.addaudithook(pause)
version = publish_example(STORE)
print(f"published {version}", flush=True)
