"""A ranking that came whole and plain, told at a glance.

Where most of what comes is turned away, most of what that costs is the reading. A request as most clients send it, all
of it in one piece, needs no parser to say for whom it is; any other is left to it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_HEAD = re.compile(
    rb"POST (/v1/surfaces/([A-Za-z0-9_-]{1,64})/rank) HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}:[ \t]?[!-~](?:[ -~]*[!-~])?\r\n){2,32})\r\n"
)
"""A request line and headers with nothing in them that two readers could take differently."""
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,8}")
_ODD = frozenset((b"transfer-encoding", b"expect", b"upgrade", b"trailer", b"te", b"proxy-connection", b"keep-alive"))
"""Headers that change how a request is to be read, or answered."""


class Glance(NamedTuple):
    """A ranking for a surface, of whose body nothing is known but that it is there; `size` is that of its head."""

    path: str
    surface: str
    headers: list[tuple[bytes, bytes]]
    size: int


def glance(data: bytes) -> Glance | None:
    """The ranking that `data` is: one whole request and no more. None for anything else, whatever it is."""
    head = _HEAD.match(data)
    if head is None:
        return None
    path, surface, lines = head.groups()
    parts = (line.partition(b":") for line in lines.removesuffix(b"\r\n").split(b"\r\n"))
    headers = [(name.lower(), value.lstrip()) for name, _, value in parts]
    found = dict(headers)
    length = found.get(b"content-length", b"")
    if len(found) != len(headers) or b"host" not in found or not _ODD.isdisjoint(found):
        return None
    if found.get(b"connection", b"keep-alive").lower() != b"keep-alive" or not _LENGTH.fullmatch(length):
        return None
    if len(data) != head.end() + int(length):
        return None
    return Glance(path.decode("ascii"), surface.decode("ascii"), headers, head.end())
