"""``asyncsdk projects upload-image|download-image``: the picture that stands for a project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.options import add_common
from asyncsdk.cli.references import find_project

__all__ = ["add_verbs", "download_image", "upload_image"]


def add_verbs(verbs: Any) -> None:
    """Add the verbs to those of projects."""
    parser = verbs.add_parser("upload-image", help="give a project a picture, in place of the one before")
    parser.add_argument("name", metavar="PROJECT", help="name or id")
    parser.add_argument("file", metavar="FILE", type=Path, help="PNG, JPEG, GIF, WebP or BMP, at most 32 MiB")
    add_common(parser)
    parser.set_defaults(work=upload_image)
    parser = verbs.add_parser("download-image", help="download the picture of a project")
    parser.add_argument("name", metavar="PROJECT", help="name or id")
    parser.add_argument("destination", metavar="DEST", type=Path, help="file, or a folder that exists")
    add_common(parser)
    parser.set_defaults(work=download_image)


async def upload_image(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk projects upload-image``."""
    given = invocation.arguments
    async with invocation.client() as client:
        project = await (await find_project(client, given.name)).upload_image(given.file)
    if invocation.output.as_json:
        invocation.output.record(project.to_json())
    invocation.output.text(f"project {project.name} has the image {project.image_filename}")
    return ExitCode.OK


async def download_image(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk projects download-image``."""
    given = invocation.arguments
    async with invocation.client() as client:
        project = await find_project(client, given.name)
        path = await project.download_image(given.destination)
    if invocation.output.as_json:
        invocation.output.record({"id": project.id, "name": project.name, "file": str(path)})
    invocation.output.text(f"image of the project {project.name}: {path}")
    return ExitCode.OK
