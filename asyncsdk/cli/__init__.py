"""The command line: ``asyncsdk COMMAND``, or ``python -m asyncsdk COMMAND``."""

from asyncsdk.cli.program import main

__all__ = ["main"]
