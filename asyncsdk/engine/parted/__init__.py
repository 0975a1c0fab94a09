"""Uploads in parts: one loop that reads, sends, tries again, counts, verifies and resumes; one class per protocol.

``contract`` says what a protocol must do, ``sending`` is the loop; ``s3``, ``sessions`` (Google Cloud Storage) and
``blocks`` (Azure) are the protocols; ``state`` is what may be remembered of an upload from one process to the next.
"""

__all__: list[str] = []
