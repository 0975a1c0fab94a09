"""Debian's nginx as a process of our own: WebDAV PUT, static GET with ranges, and POST, on loopback, plain and TLS.

A server that nobody here wrote. When it is not there and this process may install packages (it is root, or ``sudo``
asks for no password), it is installed by ``apt-get``; it is never started as a service of the machine. The integration
tests use it too.

Run it alone to install it: ``python -m benchmarks.nginx``.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = [
    "Nginx",
    "NginxUnavailable",
    "find_nginx",
    "free_port",
    "install_nginx",
    "make_certificate",
    "requests_served",
]

PACKAGES = ("nginx-light", "nginx")
START_SECONDS = 20.0

CONFIGURATION = """
daemon off;
{user}
worker_processes {workers};
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    default_type application/octet-stream;
    server_tokens off;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 75s;
    keepalive_requests 10000000;
    client_max_body_size 0;
    client_body_buffer_size 128k;
    client_body_temp_path {folder}/temp;
    proxy_temp_path {folder}/temp-proxy;
    fastcgi_temp_path {folder}/temp-fastcgi;
    uwsgi_temp_path {folder}/temp-uwsgi;
    scgi_temp_path {folder}/temp-scgi;
    server {{
        listen {address}:{port} backlog=2048{shared};
        {tls}
        root {folder}/data;
        location / {{
            dav_methods PUT DELETE;
            create_full_put_path on;
        }}
        location = /post {{
            default_type application/json;
            return 200 '{{"received":$content_length}}';
        }}
        location = /status {{ stub_status; }}
    }}
}}
"""

TLS = """
        listen {address}:{port} ssl backlog=2048{shared};
        ssl_certificate {folder}/certificate.pem;
        ssl_certificate_key {folder}/key.pem;
        ssl_protocols TLSv1.3;
        ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
"""
"""One cipher for every client: what is compared is the client, not the choice it would have made."""


class NginxUnavailable(RuntimeError):
    """nginx is not here and cannot be brought here; the message says why."""


def find_nginx() -> Path | None:
    """Return the program when it is installed and can take PUT requests, else None."""
    found = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        return None
    said = subprocess.run([found, "-V"], stdin=subprocess.DEVNULL, capture_output=True, text=True).stderr
    return Path(found) if "--with-http_dav_module" in said else None


def install_nginx() -> Path:
    """Return the program, installed from the distribution when it is not there.

    Raises:
        NginxUnavailable: This is no Debian, this process may not install packages, or apt-get failed.
    """
    if (found := find_nginx()) is not None:
        return found
    if shutil.which("apt-get") is None:
        raise NginxUnavailable("nginx is not installed, and there is no apt-get to install it with")
    prefix: list[str] = []
    if os.geteuid() != 0:
        if shutil.which("sudo") is None or _run(["sudo", "-n", "true"]).returncode:
            raise NginxUnavailable("nginx is not installed; run: sudo apt-get install nginx-light")
        prefix = ["sudo", "-n"]
    said = _install(prefix)
    if (found := find_nginx()) is None:
        raise NginxUnavailable(f"apt-get could not install nginx: {said}")
    return found


def _install(prefix: list[str]) -> str:
    """Try the packages in turn; returns the last line said by the one that failed."""
    apt = [*prefix, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    # Packages of servers start them; this file, where the distribution looks for it, says no (exit status 101).
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        script = "printf '#!/bin/sh\\nexit 101\\n' > /usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d"
        _run([*prefix, "sh", "-c", script])
    said = ""
    try:
        _run([*apt, "update"])  # a failure shows itself at the install
        for package in PACKAGES:
            reply = _run([*apt, "install", "-y", "--no-install-recommends", package])
            if reply.returncode == 0:
                break
            said = (reply.stderr.strip().splitlines() or ["no reason given"])[-1]
    finally:
        if ours:
            _run([*prefix, "rm", "-f", str(policy)])
    return said


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)


class Nginx:
    """A running nginx; use it with ``with``.

    Args:
        parent: Folder that its own folder is made in, and removed from at the end; None: memory (``/dev/shm``) where
            there is one, else the folder for temporary files.
        tls: Whether it listens for TLS 1.3 too, with a certificate made on the spot.
        workers: Its processes; connections are spread over them by chance.
        address: What it listens on; something else than loopback is for a network namespace of one's own.

    ``POST url/post`` answers how long the body was said to be; ``url/status`` counts requests (see `requests_served`).

    Attributes:
        url: Where it listens, without a slash at the end.
        tls_url: The same for TLS; empty without.
        ca_file: The authority that signed its certificate; None without TLS.
        data: What it serves: ``PUT url/a/b`` makes ``data/a/b``.
        pid: Its master process; the workers are children of it.
    """

    def __init__(
        self, parent: Path | None = None, *, tls: bool = False, workers: int = 1, address: str = "127.0.0.1"
    ) -> None:
        self._program = install_nginx()
        self._with_tls = tls
        self._workers = workers
        self._address = address
        memory = Path("/dev/shm")
        if parent is None and memory.is_dir() and os.access(memory, os.W_OK):
            parent = memory
        self._parent = parent
        self._folder = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.tls_url = ""
        self.ca_file: Path | None = None
        self.data = Path()
        self.pid = 0

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="asyncsdk-nginx-", dir=self._parent))
        self.data = self._folder / "data"
        self.data.mkdir()
        try:
            if self._with_tls:
                self.ca_file = make_certificate(self._folder)
            for _ in range(5):  # somebody else may take the free port before nginx does
                if self._start(free_port(), free_port()):
                    return self
            raise NginxUnavailable(f"nginx did not start: {self._log()}")
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process and remove its folder; calling it again does nothing."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._folder != Path():
            shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, port: int, tls_port: int) -> bool:
        # Started by root, the worker would be somebody else, who may not write here.
        user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
        configuration = self._folder / "nginx.conf"
        values = {"folder": self._folder, "user": user, "workers": self._workers, "address": self._address}
        values["shared"] = " reuseport" if self._workers > 1 else ""  # without it, one may accept them all
        tls = TLS.format(**values, port=tls_port) if self._with_tls else ""
        configuration.write_text(CONFIGURATION.format(**values, port=port, tls=tls))
        command = [str(self._program), "-p", str(self._folder), "-c", str(configuration), "-e", "error.log"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                # Written once the port is nginx's own: an answer alone could be somebody else's.
                assert (self._folder / "nginx.pid").read_text().strip() == str(self._process.pid)
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except (OSError, AssertionError):
                time.sleep(0.01)
            else:
                self.url, self.pid = f"http://127.0.0.1:{port}", self._process.pid
                self.tls_url = f"https://127.0.0.1:{tls_port}" if self._with_tls else ""
                return True
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._process = None
        return False

    def _log(self) -> str:
        log = self._folder / "error.log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return lines[-1] if lines else "it said nothing"


def make_certificate(folder: Path) -> Path:
    """Write ``certificate.pem`` and ``key.pem`` for loopback into *folder*; returns the file of their authority."""
    import trustme

    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1", "localhost", "::1")
    for number, blob in enumerate(leaf.cert_chain_pems):
        blob.write_to_path(str(folder / "certificate.pem"), append=number > 0)
    leaf.private_key_pem.write_to_path(str(folder / "key.pem"))
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    return folder / "authority.pem"


def requests_served(url: str) -> int:
    """Return how many requests the server at *url* has answered since it started, this one included."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/status", timeout=30) as reply:
        lines = reply.read().decode().splitlines()
    return int(lines[2].split()[2])


def free_port() -> int:
    """Return a port of loopback that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> int:
    """Install nginx where it is not; say where it is."""
    try:
        print(install_nginx())
    except NginxUnavailable as error:
        print(f"nginx: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
