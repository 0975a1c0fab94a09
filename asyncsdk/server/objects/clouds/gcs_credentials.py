"""As whom the server speaks to Google Cloud Storage, and what signs URLs.

Credentials are Google's Application Default Credentials: the file that ``GOOGLE_APPLICATION_CREDENTIALS`` names, or the
machine's service account. URLs are signed

* with the HMAC key in ``ASYNCSDK_GCS_HMAC_ACCESS_ID`` and ``ASYNCSDK_GCS_HMAC_SECRET``, if there is one;
* otherwise with the private key of a service account's file;
* otherwise by IAM (``signBlob``), which has the key of the machine's service account: one request for each URL.

Emulators ask nobody who they are, and check no signature.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asyncsdk.errors import ConfigError
from asyncsdk.server.objects.clouds.presigning import Credentials

__all__ = ["Signing", "emulator_endpoint", "find_credentials", "find_signing"]

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)  # signBlob wants this one, not that of storage alone
_HELP = (
    "let GOOGLE_APPLICATION_CREDENTIALS name the key file of a service account, give this machine a service account, "
    "or set STORAGE_EMULATOR_HOST for an emulator"
)


@dataclass(frozen=True, slots=True)
class Signing:
    """What signs URLs.

    Attributes:
        credentials: Returns those in force.
        asks: Whether each signature costs a request.
    """

    credentials: Callable[[], Credentials]
    asks: bool = False


def emulator_endpoint() -> str:
    """Return what ``STORAGE_EMULATOR_HOST`` says, as a URL; empty when it is not set."""
    host = os.environ.get("STORAGE_EMULATOR_HOST", "").strip().rstrip("/")
    return host if not host or "://" in host else f"http://{host}"


def find_credentials(endpoint: str) -> Any:
    """Return the credentials of ``google-auth``; anonymous ones for emulators.

    Nobody is asked who the server is where ``STORAGE_EMULATOR_HOST`` is set, or where the endpoint is plain ``http://``
    and no key file is named: tokens do not go unencrypted unless somebody says so.

    Raises:
        ConfigError: There are none.
    """
    import google.auth
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import GoogleAuthError

    has_file = bool(os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"))
    if emulator_endpoint() or (endpoint.startswith("http://") and not has_file):
        return AnonymousCredentials()
    try:
        credentials, _ = google.auth.default(scopes=_SCOPES)
    except (GoogleAuthError, OSError, ValueError) as error:  # what the file holds may be no key
        raise ConfigError(f"there are no usable credentials for Google Cloud Storage: {_HELP}") from error
    return credentials


def find_signing(credentials: Any) -> Signing:
    """Return what signs URLs.

    Args:
        credentials: As `find_credentials` found them.

    Raises:
        ConfigError: Nothing can: end users' credentials have no key, and IAM signs for service accounts only.
    """
    from google.auth import compute_engine
    from google.auth.credentials import AnonymousCredentials
    from google.auth.credentials import Signing as HasKey
    from google.oauth2 import service_account

    access_id, secret = (os.environ.get(f"ASYNCSDK_GCS_HMAC_{name}", "") for name in ("ACCESS_ID", "SECRET"))
    if bool(access_id) != bool(secret):
        raise ConfigError("ASYNCSDK_GCS_HMAC_ACCESS_ID and ASYNCSDK_GCS_HMAC_SECRET are set together, or neither")
    if not access_id and isinstance(credentials, AnonymousCredentials):
        access_id, secret = "emulator", secrets.token_hex(20)  # nobody checks it
    if access_id:
        return Signing(lambda: Credentials(access_id, secret))
    if isinstance(credentials, HasKey) and credentials.signer_email:
        key = Credentials(credentials.signer_email, sign=credentials.sign_bytes)
        return Signing(lambda: key, asks=not isinstance(credentials, service_account.Credentials))
    if isinstance(credentials, compute_engine.Credentials):
        return _machine_signing(credentials)
    raise ConfigError(
        "these credentials of Google's cannot sign URLs: take the key file of a service account, or set an HMAC key "
        "(ASYNCSDK_GCS_HMAC_ACCESS_ID, ASYNCSDK_GCS_HMAC_SECRET)"
    )


def _machine_signing(credentials: Any) -> Signing:
    from google.auth import iam
    from google.auth.transport.requests import Request

    def sign(data: bytes) -> bytes:
        # A session of its own for each request: it may be asked for on both sides of a fork.
        request = Request()
        try:
            signer = iam.Signer(request, credentials, credentials.service_account_email)
            signature: bytes = signer.sign(data)
            return signature
        finally:
            request.session.close()

    def current() -> Credentials:
        if credentials.service_account_email == "default":  # until the machine was asked for the first token
            request = Request()
            try:
                credentials.refresh(request)
            finally:
                request.session.close()
        return Credentials(credentials.service_account_email, sign=sign)

    return Signing(current, asks=True)
