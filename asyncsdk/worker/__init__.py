"""Doing jobs: what a runner is, which ones are installed, and the worker that takes jobs for them.

Sits on the entities and a session, as a client is one: what does the work speaks to the platform as users do.
"""

from asyncsdk.worker.runners import Runner, Work, find_runners, load_runner, runner_kinds
from asyncsdk.worker.worker import Worker

__all__ = ["Runner", "Work", "Worker", "find_runners", "load_runner", "runner_kinds"]
