"""``python -m asyncsdk.server.http FOLDER``: serve a data folder, print the URL as the first line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from asyncsdk.errors import AsyncSDKError
from asyncsdk.server.http import serve


def main() -> int:
    """Serve until a signal; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m asyncsdk.server.http", description="Serve a data folder.")
    parser.add_argument("folder", type=Path, help="data folder; made when missing")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8750, help="0 takes a free one")
    parser.add_argument("--public-url", help="what clients call the server")
    parser.add_argument("--objects", help="bucket that keeps the objects: s3://bucket/prefix")
    parser.add_argument("--objects-endpoint", help="URL of the bucket's service")
    arguments = parser.parse_args()
    try:
        serve(
            arguments.folder,
            arguments.host,
            arguments.port,
            public_url=arguments.public_url,
            objects=arguments.objects,
            objects_endpoint=arguments.objects_endpoint,
            on_ready=_print_line,
        )
    except AsyncSDKError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _print_line(url: str) -> None:
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
