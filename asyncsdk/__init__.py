"""The asyncsdk platform and engine."""

from asyncsdk._version import __version__

__all__ = ["__version__"]
