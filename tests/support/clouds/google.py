"""Google Cloud Storage as it is documented, in this process: what the emulator leaves out is checked here.

Signatures (V4, RSA and HMAC) with every ``x-goog-`` header under them, tokens of a service account, preconditions,
checksums and sizes that were told, sessions that end. Its requests are answered in threads of their own, as the
platform's SDK blocks.

Source: Google Cloud Storage, "V4 signing process", "Canonical requests", "Objects", "Resumable uploads", "Batch
requests".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from asyncsdk.checksums import crc32c, crc32c_base64
from tests.support.real.running import RealServer

__all__ = ["GoogleStorage", "Session", "Stored"]

BUCKET = "tests"
_OBJECT = re.compile(rf"/(download/)?storage/v1/b/{BUCKET}/o/([^/?]+)")
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


@dataclass
class Stored:
    """An object."""

    data: bytes
    generation: int

    def described(self, name: str) -> dict[str, str]:
        """Return what the JSON API says of it."""
        return {
            "kind": "storage#object",
            "name": name,
            "bucket": BUCKET,
            "size": str(len(self.data)),
            "generation": str(self.generation),
            "etag": base64.b64encode(str(self.generation).encode()).decode(),
            "crc32c": crc32c_base64(crc32c(self.data)),
        }


@dataclass
class Session:
    """A resumable upload, as it was begun and as far as it got."""

    name: str
    size_bytes: int | None
    crc32c: str | None
    must_be_new: bool
    data: bytearray = field(default_factory=bytearray)
    is_done: bool = False
    is_gone: bool = False


class GoogleStorage:
    """A bucket at Google's, and a service account that may use it. Use it with ``with``.

    Attributes:
        url: Where it listens.
        objects: What is in the bucket, by name.
        sessions: Upload sessions by id.
        asked: Method and path of every request, in order.
        key: Key of the service account, PEM.
        hmac_key: Name and secret of an HMAC key.
        page_size: Most names that one page of a listing has.
        refuses: Given a session that is to take bytes, returns the status that it answers instead; None: none.
        received_bytes: What sessions took.
        damages: How many sessions shall end as an object with other bytes than those that were sent.
    """

    email = "platform@project.iam.gserviceaccount.com"

    def __init__(self) -> None:
        self._private = rsa.generate_private_key(65537, 2048)
        self.key = self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        self.hmac_key = ("GOOGTESTS", secrets.token_urlsafe(30))
        self.objects: dict[str, Stored] = {}
        self.sessions: dict[str, Session] = {}
        self.asked: list[tuple[str, str]] = []
        self.page_size = 1000
        self.refuses: Callable[[Session], int | None] = lambda session: None
        self.received_bytes = 0
        self.damages = 0
        self.lock = threading.RLock()
        self._generation = time.time_ns() // 1000
        handler = type("Handler", (_Handler,), {"store": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def stop(self) -> None:
        """End it and wait."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def write_key_file(self, folder: Path, *, key: str = "") -> Path:
        """Write what ``GOOGLE_APPLICATION_CREDENTIALS`` names; *key* in place of its own."""
        path = folder / "service-account.json"
        facts = {
            "type": "service_account",
            "project_id": "project",
            "private_key_id": "1",
            "private_key": key or self.key,
            "client_email": self.email,
            "token_uri": f"{self.url}/token",  # nobody asks: such accounts sign their tokens themselves
            # Of Google's own universe the SDK would ask Google where the account may be used.
            "universe_domain": "google.example",
        }
        path.write_text(json.dumps(facts))
        return path

    def as_server(self, folder: Path) -> RealServer:
        """Return what fixtures want of a server; the key file lies in *folder*."""
        self.write_key_file(folder)
        return RealServer(self.url, BUCKET, self.email, self.key.splitlines()[1], "", folder, self.stop)

    def put(self, name: str, data: bytes) -> Stored:
        """Make or replace an object."""
        with self.lock:
            self._generation += 1
            self.objects[name] = Stored(bytes(data), self._generation)
            return self.objects[name]

    def verify(self, signature: bytes, data: bytes) -> bool:
        """Whether the service account signed *data*."""
        try:
            self._private.public_key().verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return False
        return True

    def knows(self, token: str) -> bool:
        """Whether a token is one that the service account signed, and in force."""
        content, _, signature = token.rpartition(".")
        try:
            claims = json.loads(base64.urlsafe_b64decode(content.partition(".")[2] + "=="))
            raw = base64.urlsafe_b64decode(signature + "==")
        except ValueError:
            return False
        return self.verify(raw, content.encode()) and claims["iat"] - 60 <= time.time() < claims["exp"]

    def refusal(self, method: str, target: str, headers: Mapping[str, str]) -> str:
        """Return why a signed request is refused; empty when it is not."""
        parts = urlsplit(target)
        raw, _, signature = parts.query.partition("&X-Goog-Signature=")
        query = dict(parse_qsl(raw, keep_blank_values=True))
        sent = {name.lower(): value.strip() for name, value in headers.items()}
        names = query.get("X-Goog-SignedHeaders", "").split(";")
        if not re.fullmatch("[0-9a-f]+", signature) or "host" not in names:
            return "MissingSecurityHeader"
        if any(name.startswith("x-goog-") and name not in names for name in sent) or not set(names) <= set(sent):
            return "MalformedSecurityHeader"
        begun = datetime.strptime(query["X-Goog-Date"] + "+0000", "%Y%m%dT%H%M%SZ%z").timestamp()
        if not begun - 900 <= time.time() < begun + int(query["X-Goog-Expires"]):
            return "ExpiredToken"
        who, scope = query["X-Goog-Credential"].split("/", 1)
        if scope != f"{query['X-Goog-Date'][:8]}/auto/storage/goog4_request":
            return "InvalidSecurity"
        lines = "".join(f"{name}:{sent[name]}\n" for name in sorted(names))
        canonical = "&".join(sorted(raw.split("&")))
        request = f"{method}\n{parts.path}\n{canonical}\n{lines}\n{';'.join(sorted(names))}\nUNSIGNED-PAYLOAD"
        digest = hashlib.sha256(request.encode()).hexdigest()
        to_sign = f"{query['X-Goog-Algorithm']}\n{query['X-Goog-Date']}\n{scope}\n{digest}".encode()
        if query["X-Goog-Algorithm"] == "GOOG4-RSA-SHA256" and who == self.email:
            is_good = self.verify(bytes.fromhex(signature), to_sign)
        else:
            key = f"GOOG4{self.hmac_key[1]}".encode()
            for step in scope.split("/"):
                key = hmac.digest(key, step.encode(), "sha256")
            is_good = who == self.hmac_key[0] and hmac.digest(key, to_sign, "sha256").hex() == signature
        return "" if is_good else "SignatureDoesNotMatch"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Handler(BaseHTTPRequestHandler):
    store: GoogleStorage
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def _handle(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.parts = urlsplit(self.path)
        self.query = dict(parse_qsl(self.parts.query, keep_blank_values=True))
        self.store.asked.append((self.command, self.parts.path))
        with self.store.lock:
            self._route()

    do_GET = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815  # the base class looks for these

    def _route(self) -> None:
        path = self.parts.path
        if "upload_id" in self.query:
            self._session()
        elif "X-Goog-Algorithm" in self.query:
            self._signed()
        elif not path.startswith(("/storage/", "/upload/", "/download/", "/batch/")):
            self._xml(401, "AuthenticationRequired")
        elif not self.store.knows(self.headers.get("authorization", "").removeprefix("Bearer ")):
            self._refuse(401, "required")
        elif path.startswith("/batch/"):
            self._batch()
        elif path == f"/storage/v1/b/{BUCKET}/o":
            self._list()
        elif path == f"/upload/storage/v1/b/{BUCKET}/o":
            self._insert()
        elif match := _OBJECT.fullmatch(path):
            self._object(unquote(match[2]), is_media=match[1] is not None or self.query.get("alt") == "media")
        else:
            self._refuse(404, "notFound")

    # --- the JSON API ---

    def _object(self, name: str, *, is_media: bool) -> None:
        found = self.store.objects.get(name)
        if found is None:
            self._refuse(404, "notFound")
        elif self.query.get("ifGenerationMatch", str(found.generation)) != str(found.generation):
            self._refuse(412, "conditionNotMet")
        elif is_media:
            self._media(found)
        else:
            self._json(found.described(name))

    def _list(self) -> None:
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter")
        after = self.query.get("pageToken", "")
        items, prefixes, last = [], set(), ""
        start, end = self.query.get("startOffset", ""), self.query.get("endOffset")
        for name in sorted(self.store.objects):
            if name < start or (end is not None and name >= end):
                continue
            rest = name[len(prefix) :]
            shown = prefix + rest.partition("/")[0] + "/" if delimiter and "/" in rest else name
            if not name.startswith(prefix) or shown <= after:
                continue
            if shown not in prefixes and len(items) + len(prefixes) == self.store.page_size:
                self._json({"items": items, "prefixes": sorted(prefixes), "nextPageToken": last})
                return
            last = shown
            if shown == name:
                items.append(self.store.objects[name].described(name))
            else:
                prefixes.add(shown)
        self._json({"items": items, "prefixes": sorted(prefixes)})

    def _insert(self) -> None:
        if self.query["uploadType"] == "resumable":
            told = json.loads(self.body)
            must_be_new = self.query.get("ifGenerationMatch") == "0"
            if must_be_new and told["name"] in self.store.objects:
                self._refuse(412, "conditionNotMet")
                return
            size = self.headers.get("x-upload-content-length")
            session = Session(told["name"], None if size is None else int(size), told.get("crc32c"), must_be_new)
            name = secrets.token_urlsafe(150)
            self.store.sessions[name] = session
            where = f"{self.store.url}{self.parts.path}?uploadType=resumable&upload_id={name}"
            self._reply(200, b"", {"Location": where})
            return
        content = b"Content-Type: " + self.headers["content-type"].encode() + b"\r\n\r\n" + self.body
        facts, media = message_from_bytes(content).get_payload()
        told, data = json.loads(facts.get_payload()), media.get_payload(decode=True)
        if told.get("crc32c", crc32c_base64(crc32c(data))) != crc32c_base64(crc32c(data)):
            self._refuse(400, "invalid")
        else:
            self._json(self.store.put(told["name"], data).described(told["name"]))

    def _batch(self) -> None:
        boundary = f"batch_{secrets.token_hex(8)}"
        content = b"Content-Type: " + self.headers["content-type"].encode() + b"\r\n\r\n" + self.body
        requests = message_from_bytes(content).get_payload()
        assert isinstance(requests, list)
        if len(requests) > 100:
            self._refuse(400, "invalid")
            return
        text = ""
        for number, one in enumerate(requests):
            method, where, _ = one.get_payload().split(" ", 2)
            match = _OBJECT.fullmatch(urlsplit(where).path)
            assert (method, match is not None) == ("DELETE", True), where
            is_there = self.store.objects.pop(unquote(match[2]), None) is not None  # type: ignore[index]  # asserted
            status = "204 No Content" if is_there else "404 Not Found"
            text += f"--{boundary}\r\nContent-Type: application/http\r\nContent-ID: <response-{number}>\r\n\r\n"
            text += f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n\r\n"
        self._reply(200, f"{text}--{boundary}--".encode(), {"Content-Type": f"multipart/mixed; boundary={boundary}"})

    # --- signed URLs and sessions ---

    def _signed(self) -> None:
        name = unquote(self.parts.path.removeprefix(f"/{BUCKET}/"))
        refusal = self.store.refusal(self.command, self.path, dict(self.headers.items()))
        found = self.store.objects.get(name)
        if refusal:
            self._xml(403, refusal)
        elif self.command == "GET":
            if found is None:
                self._xml(404, "NoSuchKey")
            else:
                self._media(found)
        elif self.command != "PUT":
            self._xml(405, "MethodNotAllowed")
        else:
            low, _, high = (self.headers.get("x-goog-content-length-range") or "0,9999999").partition(",")
            told = self.headers.get("x-goog-hash")
            if not int(low) <= len(self.body) <= int(high):
                self._xml(400, "EntityTooLarge" if len(self.body) > int(high) else "EntityTooSmall")
            elif told is not None and told != f"crc32c={crc32c_base64(crc32c(self.body))}":
                self._xml(400, "BadDigest")
            elif self.headers.get("x-goog-if-generation-match") == "0" and found is not None:
                self._xml(412, "PreconditionFailed")
            else:
                self._reply(200, b"", self._facts(self.store.put(name, self.body)))

    def _session(self) -> None:
        session = self.store.sessions.get(self.query["upload_id"])
        if session is None or session.is_gone:
            self._refuse(404 if session is None else 499, "gone")
        elif self.command == "DELETE":
            session.is_gone = True
            self._reply(499, b"")
        elif session.is_done:
            self._json(self.store.objects[session.name].described(session.name))
        else:
            self._take(session)

    def _take(self, session: Session) -> None:
        told = self.headers.get("content-range") or f"bytes 0-{len(self.body) - 1}/{len(self.body)}"
        match = _RANGE.fullmatch(told)
        assert match is not None, told
        if match[1] is not None and (status := self.store.refuses(session)) is not None:
            self._refuse(status, "refused")
            return
        if match[1] is not None:
            start, stop = int(match[1]), int(match[2]) + 1
            if start > len(session.data) or stop - start != len(self.body):
                self._refuse(503, "backendError")
                return
            session.data += self.body[len(session.data) - start :]
            self.store.received_bytes += len(self.body)
        if match[3] == "*" or len(session.data) < int(match[3]):
            there = {"Range": f"bytes=0-{len(session.data) - 1}"} if session.data else {}
            self._reply(308, b"", there)
        elif session.must_be_new and session.name in self.store.objects:
            self._refuse(412, "conditionNotMet")
        else:
            if self.store.damages:
                self.store.damages -= 1
                session.data[0] ^= 1
            data = bytes(session.data)
            facts = (session.size_bytes in {None, len(data)}, session.crc32c in {None, crc32c_base64(crc32c(data))})
            if not all(facts):
                self._refuse(400, "invalid")
                return
            session.is_done = True
            self._json(self.store.put(session.name, data).described(session.name))

    # --- replies ---

    def _media(self, found: Stored) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range") or "")
        if match is None:
            self._reply(200, found.data, self._facts(found))
            return
        start = int(match[1])
        stop = min(int(match[2]) + 1 if match[2] else len(found.data), len(found.data))
        if start >= stop:
            self._refuse(416, "requestedRangeNotSatisfiable")
            return
        told = {"Content-Range": f"bytes {start}-{stop - 1}/{len(found.data)}"}
        self._reply(206, found.data[start:stop], self._facts(found) | told)

    def _facts(self, found: Stored) -> dict[str, str]:
        return {
            "x-goog-hash": f"crc32c={crc32c_base64(crc32c(found.data))}",
            "x-goog-generation": str(found.generation),
            "ETag": f'"{found.generation}"',
        }

    def _json(self, content: Any, status: int = 200) -> None:
        self._reply(status, json.dumps(content).encode(), {"Content-Type": "application/json; charset=UTF-8"})

    def _refuse(self, status: int, reason: str) -> None:
        self._json({"error": {"code": status, "message": "No.", "errors": [{"reason": reason}]}}, status)

    def _xml(self, status: int, code: str) -> None:
        text = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>No.</Message></Error>"
        self._reply(status, text.encode(), {"Content-Type": "application/xml; charset=UTF-8"})

    def _reply(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
