"""The place where a server listens, and what it is called."""

import contextlib
import ipaddress
import socket

from lightpaff.errors import UserError


def bind(host: str, port: int) -> socket.socket:
    """A place of our own. Nobody listens there yet: until a worker does, clients are refused and may try again.

    Raises:
        UserError: another has it, or there is no such host here.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # Of a name with addresses of both kinds the one that all clients know.
        family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        with contextlib.ExitStack() as where_it_fails:
            bound = where_it_fails.enter_context(socket.socket(family, kind, protocol))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            bound.set_inheritable(True)
            where_it_fails.pop_all()
    except (OSError, UnicodeError) as error:
        told = error.strerror if isinstance(error, OSError) else "no name of a host"
        raise UserError(f"{host}: port {port} cannot be had ({told}); give another --port or --host") from error
    return bound


def address_of(bound: socket.socket) -> str:
    """As a browser takes it."""
    host, port, *_ = bound.getsockname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_reached_from_elsewhere(bound: socket.socket) -> bool:
    """Other machines may ask."""
    return not ipaddress.ip_address(bound.getsockname()[0]).is_loopback
