"""Entry point of the training image: `as_owner.py COMMAND [ARGUMENT...]`.

Root becomes the owner of the mounted model store and cannot become root again. Trained versions then belong to the
person who cloned the repository. Any other user runs the command as itself.
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
