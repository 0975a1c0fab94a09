"""Certificates for servers and clients of tests, made anew for each session; nobody else trusts them."""

from __future__ import annotations

import datetime as dt
import ssl
from pathlib import Path

import trustme

__all__ = ["Certificates"]


class Certificates:
    """An authority of our own, in files under *folder*.

    Attributes:
        ca_file: Its certificate, for clients that shall trust it.
        other_ca_file: That of an authority that signed nothing here.
        client_file: Certificate and key of a client that `server` can demand.
    """

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.ca_file))
        self.other_ca_file = folder / "other-ca.pem"
        trustme.CA().cert_pem.write_to_path(str(self.other_ca_file))
        self.client_file = folder / "client.pem"
        self._ca.issue_cert("client@example.invalid").private_key_and_cert_chain_pem.write_to_path(
            str(self.client_file)
        )

    def server(
        self,
        *names: str,
        only: ssl.TLSVersion | None = None,
        demands_client: bool = False,
        is_expired: bool = False,
    ) -> ssl.SSLContext:
        """Return the context of a server.

        Args:
            names: Host names and addresses of its certificate; none: ``localhost`` and the loopback addresses.
            only: The one version of TLS that it speaks.
            demands_client: Whether a client without a certificate of our authority is refused.
            is_expired: Whether its certificate ended yesterday.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        until = dt.datetime.now(dt.UTC) - dt.timedelta(days=1) if is_expired else None
        names = names or ("localhost", "127.0.0.1", "::1")
        self._ca.issue_cert(*names, not_after=until).configure_cert(context)
        if only is not None:
            context.minimum_version = context.maximum_version = only
        if demands_client:
            context.verify_mode = ssl.CERT_REQUIRED
            self._ca.configure_trust(context)
        return context

    def stranger(self) -> ssl.SSLContext:
        """Return the context of a server whose certificate only an authority vouches for that nobody trusts."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("localhost", "127.0.0.1", "::1").configure_cert(context)
        return context
