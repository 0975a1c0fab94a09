"""The fault server as a process: ``python -m tests.support.faults [--port PORT] [--script FILE] ...``.

Its URL is the first line it prints. At SIGTERM or Ctrl-C it ends, and prints as JSON which faults were met how often.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import ssl
import sys
from pathlib import Path

from tests.support.faults.plan import Plan
from tests.support.faults.server import FaultServer
from tests.support.faults.store import ObjectStore


async def _run(arguments: argparse.Namespace) -> None:
    tls = None
    if arguments.certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(arguments.certificate, arguments.key)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    plan = Plan() if arguments.script is None else Plan.load(arguments.script)
    store = ObjectStore(arguments.folder)
    async with FaultServer(
        plan, store=store, upstream=arguments.upstream, tls=tls, port=arguments.port, keeps_requests=False
    ) as server:
        print(server.url("").rstrip("/"), flush=True)
        await stopped.wait()
    print(json.dumps({"connections": server.connections, "met": dict(sorted(plan.met.items()))}), flush=True)


def main() -> int:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.faults", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="where to listen on loopback; 0: a free port")
    parser.add_argument("--script", type=Path, metavar="FILE", help="JSON of what goes wrong (plan.py); none: nothing")
    parser.add_argument("--upstream", metavar="URL", help="pass everything on to this server; none: a store of its own")
    parser.add_argument("--folder", type=Path, help="where the objects of its own store are kept; none: in memory")
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="chain in PEM: speak TLS")
    parser.add_argument("--key", type=Path, metavar="FILE", help="key of the certificate; none: in the same file")
    asyncio.run(_run(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
