"""`python -m service.cli.worker_program`: a worker that takes the place of one that has ended.

Settings and place come pickled through the standard input, from the supervisor alone.
"""

import pickle
import sys

from service.cli.serve_app import serve_as_worker

if __name__ == "__main__":
    serve_as_worker(*pickle.load(sys.stdin.buffer))  # noqa: S301 - its parent has written it
