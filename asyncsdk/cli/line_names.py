"""What of a signed URL stays the same when it is signed again.

Everything but the parameters that signing adds, by the names that services give them. A parameter nobody here knows
counts as part of what is named: a line is then moved once too often, never left out.

Source: Amazon S3 API reference, "Authenticating Requests: Using Query Parameters" and "Signature Version 2"; Amazon
CloudFront developer guide, "Signed URLs"; Google Cloud Storage, "V4 signing process" and "V2 signing process"; Azure
Storage REST reference, "Create a service SAS" and "Create a user delegation SAS"; Alibaba Cloud OSS, "Include
signatures in URLs".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from urllib.parse import parse_qsl, urlencode, urlsplit

__all__ = ["lasting_fields", "lasting_query"]

_AZURE = frozenset(
    (
        *("sv", "ss", "srt", "sp", "st", "se", "sip", "spr", "sig", "sr", "si", "sdd", "ses"),
        *("skoid", "sktid", "skt", "ske", "sks", "skv", "saoid", "suoid", "scid"),
    )
)
"""Of a shared access signature; these short words mean nothing special in a URL without one (``sig``)."""

_SIGNING = frozenset(
    {
        "x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-expires", "x-amz-signedheaders",
        "x-amz-security-token", "x-amz-signature", "awsaccesskeyid", "signature", "expires",
        "key-pair-id", "policy",
        "x-goog-algorithm", "x-goog-credential", "x-goog-date", "x-goog-expires", "x-goog-signedheaders",
        "x-goog-signature", "googleaccessid",
        "ossaccesskeyid", "security-token", "x-oss-signature-version", "x-oss-credential", "x-oss-date",
        "x-oss-expires", "x-oss-signature", "x-oss-additional-headers", "x-oss-security-token",
        "token", "access_token",
    }
)  # fmt: skip


def lasting_query(url: str, also: Collection[str] = ()) -> str:
    """Return the query of *url* without what signing it adds; may hold secrets all the same, and is for digests.

    Args:
        also: Further parameters to leave out, in lower case.
    """
    try:
        pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True, errors="surrogateescape")
    except ValueError:  # no URL; moving it will say so
        return url
    return _lasting(pairs, also)


def lasting_fields(fields: Iterable[tuple[str, str]]) -> str:
    """Return the fields of a form without what signing it adds, as `lasting_query` does."""
    return _lasting(list(fields), ())


def _lasting(pairs: list[tuple[str, str]], also: Collection[str]) -> str:
    names = {name.lower() for name, _ in pairs}
    leave_out = _SIGNING | _AZURE if "sig" in names else _SIGNING
    kept = sorted((name, value) for name, value in pairs if name.lower() not in leave_out and name.lower() not in also)
    # Written as a query again: what was escaped must not read as two parameters, nor one broken byte as another.
    return urlencode(kept, errors="surrogateescape")
