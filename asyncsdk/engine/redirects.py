"""Redirects: which ones are followed, where they lead, and what goes along to another origin.

Transports follow none; what the engine sends goes through `send_following`. The rules, in one place:

- GET and HEAD follow 301, 302, 303, 307 and 308. Everything else follows 307 and 308 only, which ask for the same
  request once more; the others may mean "look there", and what was sent would be lost.
- At most `MAX_REDIRECTS` hops; the same URL twice is a circle.
- Never from https to http, and never to this machine or its link (loopback, link-local) from anywhere else.
- To another origin (scheme, host or port) goes only what says which bytes are meant or what they are: no credentials,
  and no header that nobody here knows. What was left out once stays out.

A ``Location`` that is a whole URL is sent byte for byte as given: it may be signed.

Source: RFC 9110 sections 15.4 (statuses) and 10.2.2 (Location), RFC 3986 section 5.2 (relative references).
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import quote

from asyncsdk.engine.replies import Redirected, not_followed
from asyncsdk.errors import ConfigError
from asyncsdk.transport.base import OnBytes, Reply, Request, Transport, reset_checksum
from asyncsdk.transport.urls import Address, split_url

__all__ = ["MAX_REDIRECTS", "REDIRECTS", "send_following"]

MAX_REDIRECTS = 5
"""Hops of one request. Services need one or two: to a region, and from there to signed storage."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})
"""Statuses that name another place for the same thing."""

_SAME_REQUEST = frozenset({307, 308})
_READING = frozenset({"GET", "HEAD"})

# fmt: off
_CROSSING = frozenset({
    "accept", "accept-encoding", "accept-language", "range", "user-agent",
    "if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "x-goog-if-generation-match",
    "cache-control", "content-disposition", "content-encoding", "content-language", "content-type", "expect",
    "content-digest", "content-md5", "digest", "repr-digest", "x-amz-content-sha256", "x-amz-sdk-checksum-algorithm",
    "x-goog-hash",
    "x-amz-acl", "x-amz-server-side-encryption", "x-amz-storage-class", "x-amz-tagging",
    "x-goog-acl", "x-goog-content-length-range", "x-goog-storage-class",
    "x-ms-access-tier", "x-ms-blob-content-md5", "x-ms-blob-content-type", "x-ms-blob-type", "x-ms-content-crc64",
    "x-ms-version",
})
# fmt: on
"""Headers that may go to another origin: which bytes, on what condition, what they are, how they are kept. Those of
them that the services sign must arrive, or the signature in the new URL does not hold."""

_CROSSING_PREFIXES = ("x-amz-checksum-", "x-amz-meta-", "x-goog-meta-", "x-ms-meta-")

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_NOT_IN_URLS = re.compile(r"[\x00-\x20\x7f]")
_EVERY_ASCII = "".join(chr(code) for code in range(0x21, 0x7F))


async def send_following(transport: Transport, request: Request, *, final: frozenset[int] = frozenset()) -> Reply:
    """Send *request*, follow where its replies lead, and return the last one; it may be a refusal.

    Args:
        final: Statuses that are an answer; a 308 only where it does not say where to: Google's is no redirect then.

    A body is sent again from its start: what ``on_sent`` was told of it is taken back, the checksum of a `FileBody`
    starts anew. What ``on_received`` was told of the body of a redirect is taken back too.

    Returns:
        The reply; a `Redirected` one when it is not the first.

    Raises:
        MalformedResponse: A redirect that is not followed, not retryable. The message says why, and no query.
        AsyncSDKError: Whatever *transport* raises.
    """
    on_sent = request.on_sent
    sent = _Sent(on_sent)
    if on_sent is not None:
        request.on_sent = sent  # in a copy of it nobody who looks at what is under way would know it again
    try:
        reply = await transport.send(request)
        if reply.status not in REDIRECTS:
            return reply
        asked = [request]
        while reply.status in REDIRECTS:
            if reply.status in final and (reply.status != 308 or "location" not in reply.headers):
                break
            asked.append(_next(asked, reply))
            sent.take_back()
            if request.on_received is not None and reply.size_bytes:
                request.on_received(-reply.size_bytes)
            reset_checksum(request.body)
            reply = await transport.send(asked[-1])
    finally:
        request.on_sent = on_sent
    if len(asked) == 1:
        return reply
    return Redirected(reply.status, reply.headers, reply.body, reply.size_bytes, tuple(asked))


class _Sent:
    """What ``on_sent`` was told of one hop.

    Attributes:
        size_bytes: Bytes of the body that left with it.
    """

    __slots__ = ("_on_sent", "size_bytes")

    def __init__(self, on_sent: OnBytes | None) -> None:
        self._on_sent = on_sent
        self.size_bytes = 0

    def __call__(self, size_bytes: int) -> None:
        self.size_bytes += size_bytes
        if self._on_sent is not None:
            self._on_sent(size_bytes)

    def take_back(self) -> None:
        if self.size_bytes:
            self(-self.size_bytes)


def _next(asked: list[Request], reply: Reply) -> Request:
    """Return the request that follows those *asked*, the last of which was answered by the redirect *reply*.

    Raises:
        MalformedResponse: It is not followed.
    """
    first, last = asked[0], asked[-1]
    why = ""
    if last.method not in _READING and reply.status not in _SAME_REQUEST:
        why = (
            f"a {last.method} is sent again after 307 and 308 only, others may mean something else: give the final URL"
        )
    elif not reply.headers.get("location"):
        why = "the reply does not say where to"
    elif len(asked) > MAX_REDIRECTS:
        why = f"that would be more than {MAX_REDIRECTS} redirects"
    if why:
        raise not_followed(reply, first, why)
    try:
        url = _resolve(last.url, reply.headers["location"])
        there, here, start = split_url(url)[0], split_url(last.url)[0], split_url(first.url)[0]
    except ValueError:
        raise not_followed(reply, first, "that is no URL that can be requested") from None
    if url in {request.url for request in asked}:
        why = "that was asked before, it leads in a circle"
    elif here.scheme == "https" and there.scheme != "https":
        why = "that would leave TLS"
    elif _is_local(there) and not _is_local(start):
        why = "no other server decides what is asked of this machine or its link"
    if why:
        raise not_followed(reply, first, why)
    headers = last.headers if there == here else _crossing(last.headers)
    return replace(last, url=url, headers=headers)


def _crossing(headers: Mapping[str, str]) -> dict[str, str]:
    """Return those of *headers* that may go to another origin."""
    return {
        name: value
        for name, value in headers.items()
        if name.lower() in _CROSSING or name.lower().startswith(_CROSSING_PREFIXES)
    }


def _is_local(address: Address) -> bool:
    """Whether *address* names this machine, or what only this machine's link reaches (metadata of clouds).

    Judged by what is written: a name that leads here by its DNS entry is not looked up. Private networks are no such
    place: storage on the premises is often redirected to by its number.
    """
    host = address.host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        number = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            number = ipaddress.ip_address(socket.inet_aton(host))  # forms that resolvers take too: 127.1, 0x7f000001
        except OSError:
            return False
    if isinstance(number, ipaddress.IPv6Address) and number.ipv4_mapped is not None:
        number = number.ipv4_mapped
    return number.is_loopback or number.is_link_local or number.is_unspecified


# --- where a Location leads ----------------------------------------------------------------------------------


def _resolve(base: str, location: str) -> str:
    """Return the URL that *location* means in a reply to a request for *base*.

    By hand: `urllib.parse.urljoin` drops empty segments and empty queries, which are part of keys and signatures.

    Raises:
        ConfigError: It holds spaces or control characters, as two of them joined would, or another scheme.
    """
    # Headers come decoded as Latin-1; whatever is beyond ASCII is encoded as the bytes that it was.
    location = quote(location.encode("latin-1"), safe=_EVERY_ASCII + "\x00\t ")
    if _NOT_IN_URLS.search(location):
        raise ConfigError("a Location holds no spaces or control characters")
    if _SCHEME.match(location):
        if not location.lower().startswith(("http://", "https://")):
            raise ConfigError("a Location that is not http:// or https://")
        return location
    scheme, _, rest = base.partition("://")
    if location.startswith("//"):
        return f"{scheme}:{location}"
    end = re.search(r"[/?#]|$", rest)
    assert end is not None
    root, path = f"{scheme}://{rest[: end.start()]}", re.split(r"[?#]", rest[end.start() :], maxsplit=1)[0]
    reference = re.match(r"[^?#]*", location)
    assert reference is not None
    more = location[reference.end() :]
    if not reference[0]:
        query = "" if more.startswith("?") else rest[end.start() + len(path) :].partition("#")[0]
        return f"{root}{path}{query}{more}"
    target = reference[0] if location.startswith("/") else f"{path.rpartition('/')[0]}/{reference[0]}"
    return f"{root}{_without_dots(target)}{more}"


def _without_dots(path: str) -> str:
    """Return *path* without the segments ``.`` and ``..``; empty segments stay."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for index, segment in enumerate(segments):
        is_last = index == len(segments) - 1
        if segment == "..":
            kept = kept[:-1]
        if segment not in {".", ".."}:
            kept.append(segment)
        elif is_last:
            kept.append("")  # what ends in a folder stays one
    return "/" + "/".join(kept)
