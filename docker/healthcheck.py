"""HEALTHCHECK of the images. It exits with 0 when /readyz answers 200, and with 1 otherwise.

The service may listen on any address, by flag, variable or file. The check looks up its sockets. It needs no curl and
heeds no proxy setting.
"""

import http.client
import ipaddress
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_LISTENING = "0A"  # as the kernel writes TCP_LISTEN
_TIMEOUT_S = 2


def find_listeners(processes: Path = Path("/proc")) -> list[tuple[str, int]]:
    """Return host and port of each listening socket of this user's processes, lowest process first."""
    listeners: dict[tuple[str, int], None] = {}
    for process in sorted(processes.glob("[0-9]*"), key=lambda path: int(path.name)):
        inodes = set(_sockets_of(process))
        for inode, hosts, port in _listening_in(process):
            if inode in inodes:
                listeners.update(dict.fromkeys((host, port) for host in hosts))
    return list(listeners)


def is_ready(host: str, port: int) -> bool:
    """Ask /readyz and print the answer. `docker inspect` shows it."""
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        print(answer.read().decode())
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer from /readyz at {host} port {port}: {error}")
        return False
    else:
        return answer.status == 200
    finally:
        connection.close()


def _sockets_of(process: Path) -> Iterator[str]:
    try:
        for descriptor in (process / "fd").iterdir():
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                yield target[len("socket:[") : -1]
    except OSError:  # another user's process, or one that has ended
        return


def _listening_in(process: Path) -> Iterator[tuple[str, tuple[str, ...], int]]:
    for table in ("tcp", "tcp6"):
        try:
            lines = (process / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == _LISTENING:
                host, port = fields[1].split(":")
                yield fields[9], _read_hosts(host), int(port, 16)


def _read_hosts(digits: str) -> tuple[str, ...]:
    """Return the addresses to ask. The kernel writes words of four bytes in the machine's byte order."""
    words = [int(digits[start : start + 8], 16).to_bytes(4, sys.byteorder) for start in range(0, len(digits), 8)]
    address = ipaddress.ip_address(b"".join(words))
    if not address.is_unspecified:
        return (str(address),)
    # A socket on :: takes IPv4 as well. A container may have no IPv6 address.
    return ("127.0.0.1",) if address.version == 4 else ("::1", "127.0.0.1")


def main() -> int:
    """Return 0 when one of the listeners is ready."""
    listeners = find_listeners() or [("127.0.0.1", int(os.environ.get("FLOWERS_PORT") or "8000"))]
    return 0 if any(is_ready(host, port) for host, port in listeners) else 1


if __name__ == "__main__":
    sys.exit(main())
