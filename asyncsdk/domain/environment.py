"""Where this program runs, as far as it matters to people: on Colab, in a notebook, or plainly."""

from __future__ import annotations

import os
import platform
import sys
from typing import Literal

__all__ = ["Environment", "agent_name", "environment"]

Environment = Literal["colab", "jupyter", "plain"]

_COLAB_VARIABLES = ("COLAB_RELEASE_TAG", "COLAB_BACKEND_VERSION")


def environment() -> Environment:
    """Return where this program runs: Google Colab (its variables are set), a Jupyter kernel, or plainly."""
    if any(os.environ.get(name) for name in _COLAB_VARIABLES):
        return "colab"
    # Never imported for this: a program in a kernel has it already.
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    if get_shell is not None and getattr(get_shell(), "kernel", None) is not None:
        return "jupyter"
    return "plain"


def agent_name() -> str:
    """Return what an agent of this program is called: ``python-3.11.7-colab``, ``...-jupyter`` or ``...-local``."""
    where = environment()
    return f"python-{platform.python_version()}-{'local' if where == 'plain' else where}"
