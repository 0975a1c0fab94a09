"""Limits: how many at once, how many per second, how often again, and for how long."""

from asyncsdk.engine.limits.controller import Step
from asyncsdk.engine.limits.limits import Limits

__all__ = ["Limits", "Step"]
