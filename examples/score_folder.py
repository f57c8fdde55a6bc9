"""Scores of a folder as CSV, with the client of this project.

`python examples/score_folder.py FOLDER > scores.csv` has a line for each photograph. `SERVICE_URL` names the service.
`SERVICE_KEY` holds an API key.
"""

import csv
import os
import sys

from service.client import Client, Prediction


def main() -> int:
    """Print one line for each photograph. Return 1 if one has an error."""
    exit_code = 0
    url = os.environ.get("SERVICE_URL", "http://127.0.0.1:8000")
    lines = csv.writer(sys.stdout, lineterminator="\n")
    lines.writerow(["file", "label", "probability", "confident", "reason"])
    with Client(url, api_key=os.environ.get("SERVICE_KEY")) as client:
        for path, outcome in client.predict_folder(sys.argv[1]):
            if isinstance(outcome, Prediction):
                lines.writerow([path, outcome.label, outcome.probability, outcome.confident, outcome.reason])
            else:
                print(f"{path}: {outcome}", file=sys.stderr)
                exit_code = 1
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
