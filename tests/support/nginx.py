"""Debian's nginx for tests: the same server that the benchmarks use.

Run it alone to install it: ``python -m tests.support.nginx``.
"""

from __future__ import annotations

import sys

from benchmarks.nginx import Nginx, NginxUnavailable, find_nginx, install_nginx, main

__all__ = ["Nginx", "NginxUnavailable", "find_nginx", "install_nginx"]

if __name__ == "__main__":
    sys.exit(main())
