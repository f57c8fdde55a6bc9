"""The socket that a service listens on."""

import errno
import os
import socket
import sys

from service.errors import FlowersError

_STANDARD_ERROR = 2
_BACKLOG = 2048  # connections that the kernel queues before they are accepted


def listen(host: str, port: int) -> socket.socket:
    """Return a bound socket. The kernel queues connections on it while the rest starts.

    Raises:
        FlowersError: The address is taken, or not of this machine.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        dual_stack = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=dual_stack)
    except (OSError, UnicodeError) as error:  # UnicodeError: what no name can be, such as a..b
        if isinstance(error, socket.gaierror | UnicodeError) or error.errno == errno.EADDRNOTAVAIL:
            reason = f"{host} is no address of this machine. Give one with --host, such as 127.0.0.1 or 0.0.0.0."
        elif error.errno == errno.EADDRINUSE:
            reason = f"Port {port} of {host} is taken. Stop its program, or choose another with --port (FLOWERS_PORT)."
        elif isinstance(error, PermissionError):
            reason = f"Port {port} needs more rights than this user has. Choose one above 1023 with --port."
        else:
            reason = f"Port {port} of {host} cannot be opened ({error.strerror}). Choose others with --host, --port."
        raise FlowersError(reason) from error


def greet(listener: socket.socket, log_format: str) -> None:
    """Tell a person at a terminal where the service is, unless the log is for programs."""
    if log_format == "json" or not os.isatty(_STANDARD_ERROR):
        return
    url = url_of(listener).replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    print(f"The page is at {url}/.", file=sys.stderr)
    print(f"The paths are at {url}/docs. Ctrl-C ends the service.", file=sys.stderr)


def url_of(listener: socket.socket) -> str:
    """Return the address for the log. Port 0 has become a number by now."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
