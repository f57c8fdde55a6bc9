"""HTTP clients for requests to other machines and to this one.

The environment names proxies and certificates, as it does for curl. A request to this machine needs neither.
"""

import ipaddress
import os
import socket
import ssl
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import httpx

from service.errors import InvalidParameter, SettingsError

PREDICT = "/predict"
"""Path of the service that scores one image."""

_LOCAL_NAMES = ("localhost", "localhost.localdomain", "localhost4", "localhost6", "ip6-localhost", "ip6-loopback")
_PROXY_SCHEMES = ("http", "https")


def parse_service_url(url: str, path: str) -> SplitResult:
    """Return a service's URL such as http://localhost:8000 with `path` appended, without query and fragment.

    A URL that ends with `path` is taken as it is. Raises `InvalidParameter` for one that is no address of a service.
    """
    try:
        parts = urlsplit(url)
        is_valid = parts.port != 0 and bool(parts.hostname)
        (parts.hostname or "").encode("idna")  # as the resolver does. A part has 1 to 63 letters.
    except ValueError:
        parts, is_valid = urlsplit(""), False
    if not is_valid or parts.scheme not in ("http", "https") or any(character <= " " for character in url):
        raise InvalidParameter(f"{url!r} is no address of a service. Write it like http://localhost:8000.")
    before = parts.path.rstrip("/").removesuffix(path).rstrip("/")
    return parts._replace(path=before + path, query="", fragment="")


class Way:
    """Way to an http(s) URL: the proxy and the certificates that the environment names for it.

    `proxy_variable` is the variable that names the proxy, or None without one. Raises `SettingsError` for a proxy or
    certificates that cannot be used.
    """

    def __init__(self, url: httpx.URL) -> None:
        self.proxy_variable: str | None = None
        self._proxy: httpx.Proxy | None = None
        if not is_this_machine(url.host):
            self._find_proxy(url)
        is_encrypted = url.scheme == "https" or self._proxy is not None
        # Without any certificate authority nothing encrypted is trusted, and no file is read.
        self._certificates = _read_certificates() if is_encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    def open_client(self, *, timeout_s: float, headers: Sequence[tuple[str, str]] = ()) -> httpx.Client:
        """Return a client that goes this way, whatever else the environment says."""
        return httpx.Client(
            headers=list(headers), timeout=timeout_s, trust_env=False, proxy=self._proxy, verify=self._certificates
        )

    def open_async_client(self, *, connect_timeout_s: float, headers: Sequence[tuple[str, str]]) -> httpx.AsyncClient:
        """Return an asynchronous client that goes this way.

        It keeps every connection open for 60 s after a request. It has no other timeout than that of connecting.
        """
        return httpx.AsyncClient(
            headers=list(headers), timeout=httpx.Timeout(None, connect=connect_timeout_s), trust_env=False,
            proxy=self._proxy, verify=self._certificates, limits=httpx.Limits(keepalive_expiry=60),
        )  # fmt: skip

    def _find_proxy(self, url: httpx.URL) -> None:
        proxies = urllib.request.getproxies()
        kind = url.scheme if proxies.get(url.scheme) else "all"
        address = proxies.get(kind, "").strip()
        if not address or urllib.request.proxy_bypass(url.host) or _is_excepted(url.host, proxies.get("no", "")):
            return
        self.proxy_variable = _find_variable(f"{kind}_proxy")
        address = address if "://" in address else f"http://{address}"
        try:
            urlsplit(address)  # httpx takes half an IPv6 address
            self._proxy = httpx.Proxy(address)
        except (httpx.InvalidURL, ValueError):
            self._proxy = None
        if self._proxy is None or self._proxy.url.scheme not in _PROXY_SCHEMES or not self._proxy.url.host:
            # Its address may hold a password.
            raise SettingsError(
                f"{self.proxy_variable} does not name a proxy that this program can use. It takes those of the form "
                f"http://host:port. Change {self.proxy_variable}, unset it, or add {url.host} to NO_PROXY."
            )


def is_this_machine(host: str) -> bool:
    """Return whether a host is a name or an address of this machine, as far as it can be told without a look-up."""
    name = host.rstrip(".").lower()
    if name in _LOCAL_NAMES or name.endswith(".localhost"):
        return True
    address = _read_address(name)
    # 0.0.0.0 and :: are what a service listens on. A request to them goes to this machine, too.
    return address is not None and (address.is_loopback or address.is_unspecified)


def _read_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            address = ipaddress.IPv4Address(socket.inet_aton(host))  # 127.1 is an address as well
        except OSError:
            return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_excepted(host: str, no_proxy: str) -> bool:
    """Return whether NO_PROXY holds the address or a network with it. urllib compares names only."""
    address = _read_address(host)
    if address is None:
        return False
    for entry in no_proxy.split(","):
        try:
            if address in ipaddress.ip_network(entry.strip().replace("[", "").replace("]", ""), strict=False):
                return True
        except ValueError:
            continue
    return False


def _find_variable(name: str) -> str:
    """Return the variable's name as it is written in the environment. Lower case wins, as for curl."""
    written = sorted(variable for variable in os.environ if variable.lower() == name and os.environ[variable])
    return written[-1] if written else f"the system's {name}"


def _read_certificates() -> ssl.SSLContext:
    for variable, argument, is_right, what in (
        ("SSL_CERT_FILE", "cafile", Path.is_file, "file of certificates"),
        ("SSL_CERT_DIR", "capath", Path.is_dir, "folder of certificates"),
    ):
        if value := os.environ.get(variable):
            try:
                if not is_right(Path(value)):
                    raise FileNotFoundError
                return ssl.create_default_context(**{argument: value})  # type: ignore[arg-type]
            except OSError as error:  # ssl.SSLError is one
                raise SettingsError(
                    f"{variable} is {value}, which is no readable {what}. Name one, or unset {variable}."
                ) from error
    return httpx.create_ssl_context(trust_env=False)
