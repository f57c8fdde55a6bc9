"""Hugging Face's client, in an environment of its own: `ask.py URL PHOTOGRAPH KEY`. It prints JSON."""

import json
import sys

from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

url, photograph, key = sys.argv[1:]
client = InferenceClient(model=url, token=key or None)


def ask(**options):
    scores = client.image_classification(photograph, **options)
    return [{"label": score.label, "score": score.score} for score in scores]


try:
    ask(function_to_apply="sigmoid")
    refused = None
except HfHubHTTPError as error:
    refused = [error.response.status_code, error.response.text]
print(json.dumps({"all": ask(), "two": ask(top_k=2), "softmax": ask(function_to_apply="softmax"), "refused": refused}))
