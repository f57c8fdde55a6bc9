"""The shipped model, served with and without keys, directly and behind real proxies."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import REPOSITORY
from support import programs
from support.serving import served

KEY = "a-key-of-32-characters-000000001"

# Websockets as nginx' own documentation has them; bodies go on as they come, over connections that are kept.
NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; client_max_body_size 30m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  upstream service {{ server {service}; keepalive 8; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://service; proxy_http_version 1.1; proxy_request_buffering off;
      proxy_set_header Host $host; proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
    }}
  }}
}}
"""
CADDY = """
{{
  admin off
  auto_https off
}}
http://127.0.0.1:{port} {{
  reverse_proxy {service}
}}
"""


@pytest.fixture
def require() -> Callable[[str, str], str]:
    """What gives a program's path, by its name and its package's."""
    return programs.require


@dataclass(frozen=True)
class Place:
    """Where clients ask. `key` is what the service wants, or empty."""

    port: int
    key: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def _proxy(name: str, folder: Path, service: str) -> Iterator[int]:
    port = programs.find_free_port()
    config = folder / "config"
    config.write_text({"nginx": NGINX, "caddy": CADDY}[name].format(folder=folder, port=port, service=service))
    if name == "nginx":
        command = [programs.require("nginx", "nginx-light"), "-p", str(folder), "-c", str(config)]
    else:
        command = [programs.require("caddy", "caddy"), "run", "--adapter", "caddyfile", "--config", str(config)]
    variables = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with programs.listening(command, port, folder / "log", variables):
        yield port


@pytest.fixture(scope="module", params=["without keys", "with keys"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    key = KEY if request.param == "with keys" else ""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(key)
    flags = ["--api-keys-file", str(keys)] if key else []
    with served(REPOSITORY / "model_store", "--device", "cpu", "--no-access-log", *flags) as running:
        running.wait_for("model loaded")
        yield Place(int(running.url.rsplit(":", 1)[1]), key)


@pytest.fixture(scope="module", params=["directly", "nginx", "caddy"])
def place(request: pytest.FixtureRequest, service: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The service itself, and the service behind each proxy."""
    if request.param == "directly":
        yield service
        return
    with _proxy(request.param, tmp_path_factory.mktemp(request.param), f"127.0.0.1:{service.port}") as port:
        yield Place(port, service.key)
