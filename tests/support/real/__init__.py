"""Servers that nobody here wrote, each started on loopback for a test and stopped after it.

One module each: ``swift`` (OpenStack Swift with s3api, the strictest about S3), ``rclone`` (``rclone serve s3``),
``azurite`` (Azure blobs), ``gcs`` (an emulator of Google Cloud Storage with resumable sessions). Every module has
``unavailable() -> str | None``, the reason why it cannot be started here, and ``start(folder) -> RealServer``.
`tests.support.real.install` brings the programs into ``.tools/``. nginx is older: `tests.support.nginx`.
"""
