"""A peer for tests of the harness: `scripted_peer.py PORT LABEL PAUSE_S`.

It says LABEL of every photograph (empty: half an answer), PAUSE_S after it was asked, and has a child that has left it.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, label, pause_s = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(pause_s)
        probabilities = [1.0 * (label == name) for name in ("roses", "tulips")] if label else []
        body = json.dumps({"probabilities": probabilities}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        time.sleep(120)
    os._exit(0)
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
