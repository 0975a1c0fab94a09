"""OpenStack Swift with its S3 API: the strictest S3 that installs without a daemon of the machine.

It checks signatures and their age, Content-MD5 and ``x-amz-checksum-*``, preconditions, and the parts of a multipart
upload. Four small processes; about six seconds to start. Its files carry extended attributes: a file system without
them will not do.
"""

from __future__ import annotations

import getpass
import secrets
from pathlib import Path

from tests.support.real.running import Processes, RealServer, start_on_free_ports
from tests.support.real.s3 import make_bucket
from tests.support.real.tools import TOOLS

__all__ = ["start", "unavailable"]

_TOOL = TOOLS["swift"]

_STORE = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
disable_fallocate = true
workers = 0
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""

_PROXY = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {folder}
workers = 0
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache listing_formats bulk s3api tempauth copy slo dlo symlink
    proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:9
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
min_segment_size = 65536
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {secret} .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:symlink]
use = egg:swift#symlink
"""

_RINGS = """
import sys
from swift.common.ring import RingBuilder
for name, port in zip(("object", "container", "account"), sys.argv[2:]):
    builder = RingBuilder(4, 1, 1)
    builder.add_dev({"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "1", "weight": 1,
                     "replication_ip": "127.0.0.1", "replication_port": int(port), "meta": ""})
    builder.rebalance()
    builder.get_ring().save(f"{sys.argv[1]}/{name}.ring.gz")
"""


def unavailable() -> str | None:
    """Return why it cannot be started here, None when it can."""
    return _TOOL.unavailable()


def start(folder: Path) -> RealServer:
    """Start it with its data in *folder*, which must exist; the smallest part is 64 KiB."""
    return start_on_free_ports(4, lambda ports: _start(folder, ports))


def _start(folder: Path, ports: tuple[int, ...]) -> RealServer:
    kinds = ("object", "container", "account", "proxy")
    secret = secrets.token_hex(16)
    (folder / "devices" / "1").mkdir(parents=True, exist_ok=True)
    (folder / "swift.conf").write_text("[swift-hash]\nswift_hash_path_prefix = tests\nswift_hash_path_suffix = tests\n")
    for kind, port in zip(kinds, ports, strict=True):
        text = (_PROXY if kind == "proxy" else _STORE).format(
            kind=kind, port=port, folder=folder, user=getpass.getuser(), secret=secret
        )
        (folder / f"{kind}-server.conf").write_text(text)
    processes = Processes(folder)
    environment = {"PYTHONWARNINGS": "ignore"}
    try:
        python = str(_TOOL.program("python"))
        processes.start("rings", [python, "-c", _RINGS, str(folder), *map(str, ports[:3])], environment=environment)
        processes.finish("rings")
        for kind in kinds:
            command = [str(_TOOL.program(f"swift-{kind}-server")), str(folder / f"{kind}-server.conf"), "--verbose"]
            processes.start(kind, command, environment=environment)
        for kind, port in zip(kinds, ports, strict=True):
            processes.wait_for(kind, port)
        server = RealServer(
            url=f"http://127.0.0.1:{ports[3]}",
            bucket="tests",
            access_key="test:tester",
            secret_key=secret,
            region="us-east-1",
            data=folder / "devices",
            stop=processes.stop,
        )
        make_bucket(server)
    except BaseException:  # an interrupt leaves no process behind either
        processes.stop()
        raise
    return server
