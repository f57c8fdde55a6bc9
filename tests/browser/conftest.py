"""Chromium, and the shipped model served for it in several ways."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from support import programs
from support.browsing import KEY
from support.serving import served

CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")

# `/bare` reaches the service without its prefix, and so does `/bare/`. `/kept` is not stripped.
NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off; client_max_body_size 30m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    proxy_set_header Host $http_host; proxy_http_version 1.1; proxy_request_buffering off;
    location /bare {{
      rewrite ^/bare/?(.*)$ /$1 break;
      proxy_pass http://{service}; proxy_set_header X-Forwarded-Prefix /bare;
    }}
    location /kept {{
      rewrite ^/kept/(.*)$ /$1 break;
      proxy_pass http://{service}; proxy_set_header X-Forwarded-Prefix /kept;
    }}
    location /silent/ {{ proxy_pass http://{service}/; }}
  }}
}}
"""


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Debian's Chromium with a camera that shows a test card."""
    from playwright.sync_api import sync_playwright  # here, as only .ci/browser installs it

    program = programs.require("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", *CAMERA])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """What opens an address in a context of its own. An error of a script or of the policy fails the test."""
    contexts: list[Any] = []
    errors: list[str] = []

    def open_page(url: str, **options: Any) -> Any:
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if "Content Security" in message.text else None)
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


@contextmanager
def _served(*flags: str) -> Iterator[str]:
    with served(REPOSITORY / "model_store", "--device", "cpu", *flags) as service:
        service.wait_for("model loaded")
        yield f"{service.url}/"


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """The address of the shipped model."""
    with _served() as url:
        yield url


@pytest.fixture(scope="session")
def guarded_url() -> Iterator[str]:
    """The address of a service that wants `KEY`."""
    with _served("--api-keys", KEY) as url:
        yield url


@pytest.fixture(scope="session")
def strict_url() -> Iterator[str]:
    """The address of a service that takes 60 kB and 30,000 pixels."""
    with _served("--max-image-bytes", "60000", "--max-image-pixels", "30000") as url:
        yield url


@pytest.fixture(scope="session")
def proxy_url(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of nginx in front of the shipped model."""
    folder = tmp_path_factory.mktemp("nginx")
    port = programs.find_free_port()
    config = folder / "config"
    config.write_text(NGINX.format(folder=folder, port=port, service=url.split("/")[2]))
    command = [programs.require("nginx", "nginx-light"), "-p", str(folder), "-c", str(config)]
    with programs.listening(command, port, folder / "log"):
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of the sample photographs."""
    return REPOSITORY / "service" / "api" / "page" / "samples"
