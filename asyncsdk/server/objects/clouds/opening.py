"""Which cloud a location names."""

from __future__ import annotations

from asyncsdk.server.objects.clouds.azure import AzureBucket
from asyncsdk.server.objects.clouds.bucket import Bucket
from asyncsdk.server.objects.clouds.location import Location
from asyncsdk.server.objects.clouds.objects import CloudObjects
from asyncsdk.server.objects.clouds.s3 import S3Bucket

__all__ = ["open_cloud"]


def open_cloud(location: Location, namespace: str) -> CloudObjects:
    """Return the store of a data folder in a bucket.

    Args:
        location: The bucket.
        namespace: The data folder's own.

    Raises:
        ConfigError: The extra of that cloud is not installed, or there are no credentials.
    """
    bucket: Bucket = AzureBucket(location) if location.scheme == "az" else S3Bucket(location)
    return CloudObjects(bucket, location.prefix, namespace)
