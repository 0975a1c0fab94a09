"""The XML that S3 clients exchange about an upload in parts.

Source: Amazon S3 API reference, CompleteMultipartUpload, ListParts.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from asyncsdk.checksums import crc32c_base64
from asyncsdk.errors import BadRequest
from asyncsdk.server.objects.parts import MAX_PARTS, Receipt

__all__ = ["complete_result", "list_parts_result", "parse_complete"]

_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'


def parse_complete(body: bytes) -> list[tuple[int, str]]:
    """Return number and ETag of every part in a CompleteMultipartUpload document, in its order.

    Raises:
        BadRequest: It is no such document.
    """
    # No document type, so no entities either: nothing can be blown up. It must not hide in another encoding.
    if b"\0" in body or body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _malformed("it must be written in UTF-8")
    if b"<!" in body:
        raise _malformed("it holds declarations")
    try:
        root = ET.fromstring(body, parser=ET.XMLParser(encoding="utf-8"))  # noqa: S314  # see above
    except ET.ParseError as error:
        raise _malformed(str(error)) from error
    if _local(root) != "CompleteMultipartUpload":
        raise _malformed(f"its root is {_local(root)[:100]!r}")
    parts = []
    for element in root:
        if _local(element) != "Part":
            continue
        fields = {_local(child): (child.text or "").strip() for child in element}
        number = fields.get("PartNumber", "")
        if not (number.isascii() and number.isdigit() and len(number) <= 5) or not fields.get("ETag"):
            raise _malformed("every Part needs PartNumber and ETag")
        parts.append((int(number), fields["ETag"]))
    return parts


def complete_result(object_id: str, location: str, etag: str, crc32c: str) -> bytes:
    """Return the answer to a completed upload; *location* holds no query."""
    return (
        f'{_DECLARATION}<CompleteMultipartUploadResult xmlns="{_NAMESPACE}">'
        f"<Location>{escape(location)}</Location><Bucket>objects</Bucket><Key>{object_id}</Key>"
        f"<ETag>{escape(etag)}</ETag><ChecksumCRC32C>{crc32c_base64(int(crc32c, 16))}</ChecksumCRC32C>"
        "<ChecksumType>FULL_OBJECT</ChecksumType></CompleteMultipartUploadResult>"
    ).encode()


def list_parts_result(object_id: str, upload_id: str, receipts: Sequence[Receipt]) -> bytes:
    """Return the list of the parts that arrived: all of them in one answer."""
    parts = "".join(
        f"<Part><PartNumber>{receipt.part}</PartNumber><ETag>{escape(receipt.etag)}</ETag><Size>{receipt.size_bytes}"
        f"</Size><ChecksumCRC32C>{crc32c_base64(int(receipt.crc32c, 16))}</ChecksumCRC32C></Part>"
        for receipt in receipts
    )
    last = receipts[-1].part if receipts else 0
    return (
        f'{_DECLARATION}<ListPartsResult xmlns="{_NAMESPACE}"><Bucket>objects</Bucket><Key>{object_id}</Key>'
        f"<UploadId>{upload_id}</UploadId><PartNumberMarker>0</PartNumberMarker>"
        f"<NextPartNumberMarker>{last}</NextPartNumberMarker><MaxParts>{MAX_PARTS}</MaxParts>"
        f"<IsTruncated>false</IsTruncated>{parts}</ListPartsResult>"
    ).encode()


def _local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _malformed(reason: str) -> BadRequest:
    return BadRequest(f"the body must be a CompleteMultipartUpload document: {reason}", code="malformed_xml")
