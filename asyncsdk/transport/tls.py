"""TLS settings, the same for every transport: whom to trust, who we are, which ciphers first."""

from __future__ import annotations

import logging
import os
import re
import ssl
import sys
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import certifi

from asyncsdk.errors import ConfigError

__all__ = ["TlsConfig", "shared_context"]

_log = logging.getLogger("asyncsdk.transport")

_HASHED_NAME = re.compile(r"[0-9a-f]{8}\.[0-9]+")
"""How OpenSSL looks for a certificate in a folder."""


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Whom to trust, and who we are, on every ``https`` connection.

    TLS 1.2 or newer; certificate and host name are verified. Trusted is what ``ca_file`` holds; without it what
    ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` in the environment name; without those the system's store; when that is empty
    (a bare container), the certificates that come with the package certifi.

    Args:
        verify: False accepts any certificate from anybody, so whoever is in between reads and changes everything;
            only ever for tests. Said once in the log.
        ca_file: Certificates to trust instead of the system's, PEM, one after the other.
        cert_file: Our own certificate, for servers that ask for one; PEM, followed by those that vouch for it.
        key_file: Its private key, PEM; None: it is in ``cert_file``.
        key_password: What the key is encrypted with; never shown.

    Raises:
        ConfigError: Settings that contradict each other.
    """

    verify: bool = True
    ca_file: Path | str | None = None
    cert_file: Path | str | None = None
    key_file: Path | str | None = None
    key_password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.verify, bool):
            raise ConfigError("verify must be True or False; certificates to trust go into ca_file")
        if not self.verify and self.ca_file is not None:
            raise ConfigError("verify=False trusts anybody, ca_file only some: give one of them")
        if self.cert_file is None and (self.key_file is not None or self.key_password is not None):
            raise ConfigError("key_file and key_password need cert_file, the certificate that the key belongs to")

    def context(self) -> ssl.SSLContext:
        """Return a new context with these settings. Blocking: make it once.

        25 to 60 ms were measured for a system that trusts 144 certificates, 1 ms for a ``ca_file`` with one.

        It speaks HTTP/1.1 only (ALPN), refuses renegotiation, and prefers AES-128-GCM, which was measured a seventh
        cheaper than AES-256. That concerns TLS 1.2; the order for TLS 1.3 is OpenSSL's (AES-256 first), which `ssl`
        of Python 3.11 cannot change, and a server's own preference overrides both. Session keys are never written to
        a file, whatever ``SSLKEYLOGFILE`` says: with them, recorded traffic gives up the signed URLs in it.

        Raises:
            ConfigError: A file cannot be read, holds no certificate, or the key does not fit; says which.
        """
        # Not ssl.create_default_context: it opens the key log file and decides about the trust store by itself.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        if sys.version_info >= (3, 13):
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_STRICT  # as its default context has
        context.set_alpn_protocols(["http/1.1"])
        _prefer_aes_128(context)
        if self.verify:
            self._load_trust(context)
        else:
            _warn_once()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self._load_identity(context)
        return context

    def for_proxy(self) -> TlsConfig:
        """Return the settings for TLS to a proxy: the same trust, but our certificate is the server's business only."""
        return replace(self, cert_file=None, key_file=None, key_password=None)

    def _load_trust(self, context: ssl.SSLContext) -> None:
        if self.ca_file is not None:
            _trust(context, str(self.ca_file), None, "ca_file")
            return
        file, folders = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
        if file or folders:
            _trust(context, file, folders, "SSL_CERT_FILE" if file else "SSL_CERT_DIR")
            return
        context.load_default_certs()
        if not context.cert_store_stats()["x509_ca"] and not _holds_certificates(
            ssl.get_default_verify_paths().capath or ""
        ):
            context.load_verify_locations(cafile=certifi.where())

    def _load_identity(self, context: ssl.SSLContext) -> None:
        if self.cert_file is None:
            return
        key = self.key_file if self.key_file is not None else self.cert_file
        for setting, path in (("cert_file", self.cert_file), ("key_file", key)):
            _check_readable(str(path), setting)
        try:
            # A password that is missing must not be asked for on the terminal.
            context.load_cert_chain(self.cert_file, key, password=self.key_password or "")
        except ssl.SSLError as error:
            raise ConfigError(
                f"cert_file {str(self.cert_file)!r} and key_file {str(key)!r} cannot be used "
                f"({error.reason or 'no PEM'}): they must be PEM, belong together, and key_password must fit the key"
            ) from None


def shared_context(scheme: str, tls: TlsConfig) -> ssl.SSLContext:
    """Return the context for calls to *scheme* URLs, one for everybody in this process with the same settings.

    For ``http`` it is one that trusts nobody, made at no cost: nothing is encrypted there. Certificates are read once;
    what changes in those files is seen by the next process.

    Raises:
        ConfigError: As `TlsConfig.context`.
    """
    if scheme == "http":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return _kept_context(tls, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@lru_cache(maxsize=8)
def _kept_context(tls: TlsConfig, _file: str | None, _folders: str | None) -> ssl.SSLContext:
    return tls.context()


def _prefer_aes_128(context: ssl.SSLContext) -> None:
    """Put AES-128-GCM first; what is allowed at all stays as the system's policy has it."""
    names = [cipher["name"] for cipher in context.get_ciphers() if not cipher["name"].startswith("TLS_")]
    if names:
        first = [name for name in names if name.startswith("ECDHE-") and "AES128-GCM" in name]
        context.set_ciphers(":".join(dict.fromkeys(first + names)))


def _trust(context: ssl.SSLContext, file: str | None, folders: str | None, setting: str) -> None:
    if file:
        _check_readable(file, setting)
    elif folders and not any(Path(folder).is_dir() for folder in folders.split(os.pathsep)):
        raise ConfigError(f"{setting} names {folders!r}, which is no folder; correct or unset it")
    try:
        context.load_verify_locations(cafile=file or None, capath=folders or None)
    except (ssl.SSLError, OSError):
        raise ConfigError(f"{setting} names {file or folders!r}, which holds no certificate in PEM form") from None


def _check_readable(path: str, setting: str) -> None:
    try:
        with Path(path).open("rb"):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{setting} names {path!r}, which cannot be read: {reason}") from None


def _holds_certificates(folder: str) -> bool:
    try:
        return any(_HASHED_NAME.fullmatch(path.name) for path in Path(folder).iterdir())
    except OSError:
        return False  # no such folder: nothing in it


_has_warned = False


def _warn_once() -> None:
    global _has_warned  # noqa: PLW0603  # one line per process, however many transports there are
    if not _has_warned:
        _has_warned = True
        _log.warning("TLS certificates are not verified (verify=False): anybody in between can read and change all")
