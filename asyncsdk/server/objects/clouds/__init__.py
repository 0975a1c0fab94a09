"""Objects in a cloud's bucket: clients send and fetch them by the cloud's own signed URLs, past the platform.

``location`` says which bucket, ``objects`` is the store over any of them, ``bucket`` what a cloud must do for it; one
module each for a cloud. The clouds' own packages are imported when one is opened, never before.
"""

from asyncsdk.server.objects.clouds.location import Location
from asyncsdk.server.objects.clouds.objects import CloudObjects

__all__ = ["CloudObjects", "Location"]
