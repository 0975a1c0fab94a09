"""The object store: a local folder, upload keys and signed URLs, and what mints targets and origins from them."""

from asyncsdk.server.objects.local import LocalObjects
from asyncsdk.server.objects.minting import FileMinter, Minter, UrlMinter
from asyncsdk.server.objects.signing import Signer

__all__ = ["FileMinter", "LocalObjects", "Minter", "Signer", "UrlMinter"]
