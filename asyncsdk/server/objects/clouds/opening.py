"""Which cloud a location names."""

from __future__ import annotations

from asyncsdk.server.objects.clouds.azure import AzureBucket
from asyncsdk.server.objects.clouds.bucket import Bucket
from asyncsdk.server.objects.clouds.gcs import GcsBucket
from asyncsdk.server.objects.clouds.location import Location
from asyncsdk.server.objects.clouds.objects import CloudObjects
from asyncsdk.server.objects.clouds.s3 import S3Bucket

__all__ = ["open_bucket", "open_cloud"]


def open_cloud(location: Location, namespace: str, secret: bytes) -> CloudObjects:
    """Return the store of a data folder in a bucket.

    Args:
        location: The bucket.
        namespace: The data folder's own.
        secret: The data folder's signing secret; what clients must not read is sealed with it.

    Raises:
        ConfigError: The extra of that cloud is not installed, or there are no credentials.
    """
    return CloudObjects(open_bucket(location, secret), location.prefix, namespace)


def open_bucket(location: Location, secret: bytes) -> Bucket:
    """Return the bucket; see `open_cloud`. Amazon is asked for its region."""
    match location.scheme:
        case "az":
            return AzureBucket(location)
        case "gs":
            return GcsBucket(location, secret)
        case _:
            bucket = S3Bucket(location)
            if not location.endpoint:  # a store of one's own has the region that the settings name
                try:
                    bucket.find_region()
                except BaseException:  # closed whatever ended it, then raised again
                    bucket.close()
                    raise
            return bucket
