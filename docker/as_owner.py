"""Become the owner of the mounted model store, then run the command given: `as_owner.py COMMAND [ARGUMENT...]`.

A bind mount belongs to whoever cloned the repository, whose number the image cannot know. Root reads it off the folder
and gives root up for good, so that what is trained belongs to that person. Anybody but root just runs the command.
"""

import os
import sys
from pathlib import Path

if os.geteuid() == 0:
    store = Path(os.environ["FLOWERS_MODEL_STORE"]).stat()
    os.setgroups([])
    os.setgid(store.st_gid)
    os.setuid(store.st_uid)
os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - the command is the image's own
