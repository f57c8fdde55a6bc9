"""Exit 0 when /readyz says so, 1 otherwise: the image's HEALTHCHECK, without curl and past any proxy setting."""

import http.client
import os
import sys

connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("FLOWERS_PORT", "8000")), timeout=2)
try:
    connection.request("GET", "/readyz")
    answer = connection.getresponse()
    print(answer.read().decode())  # `docker inspect` shows it, with the reason when it is not ready
    sys.exit(answer.status != 200)
except OSError as error:
    sys.exit(f"no answer from /readyz: {error}")
