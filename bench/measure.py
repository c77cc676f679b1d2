"""Measure a server by its CPU seconds: pinned processes, the C load generator, nginx beside it, rounds and medians."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER_CORE = 0
CLIENT_CORE = 1
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0
HERE = Path(__file__).resolve().parent


class MeasureError(Exception):
    """A measurement could not be made as it was meant."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Certificate:
    """Paths of a PEM certificate and of its private key."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Pki:
    """One ECDSA P-256 authority and the certificates it has issued."""

    authority: Path
    server: Certificate
    clients: Mapping[str, Certificate]


def make_pki(folder: Path, sae_ids: Sequence[str]) -> Pki:
    """A server certificate for localhost and a client certificate with `urn:keyhop:sae:<id>` for each SAE ID."""
    folder.mkdir(parents=True, exist_ok=True)
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=5)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench authority")])

    def issue(name: str, san: Sequence[x509.GeneralName], usage: x509.ObjectIdentifier | None) -> Certificate:
        own = usage is None
        key = authority_key if own else ec.generate_private_key(ec.SECP256R1())
        builder = (
            x509.CertificateBuilder()
            .subject_name(
                authority_name if own else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
            )
            .issuer_name(authority_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=own, path_length=0 if own else None), critical=True)
        )
        if usage is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName(san), critical=False)
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        paths = Certificate(folder / f"{name}.crt", folder / f"{name}.key")
        paths.cert.write_bytes(builder.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        paths.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        paths.key.chmod(0o600)
        return paths

    return Pki(
        issue("authority", [], None).cert,
        issue("server", [x509.DNSName("localhost")], ExtendedKeyUsageOID.SERVER_AUTH),
        {
            sae: issue(sae, [x509.UniformResourceIdentifier(f"urn:keyhop:sae:{sae}")], ExtendedKeyUsageOID.CLIENT_AUTH)
            for sae in sae_ids
        },
    )


def _thread_cpu_ns(process: Path) -> int:
    """Time on a CPU of all live threads, in nanoseconds (the first field of schedstat)."""
    total = 0
    for thread in (process / "task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += int((thread / "schedstat").read_text().split()[0])
    return total


def group_cpu_s(group: int) -> float:
    """CPU seconds, user and kernel, of the live processes of a process group."""
    total = 0
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            # The command name stands in brackets and may hold anything, so count from behind it.
            after_name = (process / "stat").read_text().rpartition(")")[2].split()
            if int(after_name[2]) == group:
                total += _thread_cpu_ns(process)
    return total / 1e9


@contextlib.contextmanager
def pinned(
    command: Sequence[str | Path], *, core: int, port: int | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own on one core, ready when its port accepts; ended by its group at the end."""
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *map(str, command)],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )
    try:
        if port is not None:
            wait_for_port(port, process)
        yield process
    finally:
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal_number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_TIMEOUT_S)


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise MeasureError(f"{process.args!r} ended with {process.returncode} before it listened")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.02)
    raise MeasureError(f"nothing listened on port {port} within {START_TIMEOUT_S} s")


@contextlib.contextmanager
def nginx(folder: Path, pki: Pki, body: bytes, core: int = SERVER_CORE) -> Iterator[tuple[int, int]]:
    """Debian's nginx with a fixed answer over mutual TLS 1.3; gives (port, process group)."""
    binary = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if binary is None:
        raise MeasureError("nginx is not installed: apt-get install nginx-light")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(f"""
worker_processes 1; daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; default_type application/json; server_tokens off;
  keepalive_requests 1000000000; keepalive_timeout 600s;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl backlog=4096; server_name localhost;
    ssl_certificate {pki.server.cert}; ssl_certificate_key {pki.server.key};
    ssl_client_certificate {pki.authority}; ssl_verify_client on; ssl_protocols TLSv1.3;
    ssl_session_tickets off; ssl_session_cache off;
    location / {{ add_header Cache-Control no-store; return 200 '{body.decode()}'; }}
  }}
}}
""")
    with pinned([binary, "-c", configuration, "-p", folder], core=core, port=port) as process:
        yield port, process.pid


def build_loadgen(folder: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        raise MeasureError("no C compiler: apt-get install gcc libssl-dev")
    folder.mkdir(parents=True, exist_ok=True)
    binary = folder / "loadgen"
    subprocess.run(
        [compiler, "-O2", "-o", binary, HERE / "loadgen.c", "-lssl", "-lcrypto", "-lm"], check=True, capture_output=True
    )
    return binary


@dataclass(frozen=True)
class Load:
    """What the load generator is to do; the fields are its options."""

    path: str
    client: str
    connections: int = 32
    seconds: float = 3.0
    warmup_s: float = 0.5
    new_connections: bool = False
    bodies: Path | None = None
    """POST each line of this file once, instead of GET."""
    answers: Path | None = None
    """Write the bodies of 200 answers here, a line each."""
    rate: float = 0.0
    """Requests a second, at random moments; 0: each connection sends its next one when it has its answer."""


@dataclass(frozen=True)
class Result:
    requests: int
    seconds: float
    server_cpu_s: float
    client_cpu_s: float
    p50_us: float
    p99_us: float
    errors: int
    non_200: int
    resumed: int
    stolen_s: float = 0.0
    """CPU time the hypervisor took from this machine while it was measured, all cores."""

    @property
    def per_cpu_s(self) -> float:
        return self.requests / self.server_cpu_s

    @property
    def per_wall_s(self) -> float:
        return self.requests / self.seconds


def _stolen_s() -> float:
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(fields[8]) / os.sysconf("SC_CLK_TCK")


def run_load(loadgen: Path, load: Load, port: int, group: int, pki: Pki, core: int = CLIENT_CORE) -> Result:
    """One run against a listening server; its CPU seconds count from the end of the warm-up to the end of the load."""
    client = pki.clients[load.client]
    command: list[str | Path | float] = ["taskset", "-c", str(core), loadgen, "-p", str(port), "-u", load.path]
    command += ["-C", client.cert, "-K", client.key, "-A", pki.authority]
    command += ["-c", str(load.connections), "-d", str(load.seconds), "-w", str(load.warmup_s)]
    if load.new_connections:
        command.append("-n")
    if load.bodies is not None:
        command += ["-b", load.bodies]
    if load.answers is not None:
        command += ["-o", load.answers]
    if load.rate:
        command += ["-r", load.rate]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    begin = end = stolen = 0.0
    report: dict[str, float] = {}
    assert process.stdout is not None
    for line in process.stdout:
        if line == "begin\n":
            begin, stolen = group_cpu_s(group), _stolen_s()
        elif line == "end\n":
            end, stolen = group_cpu_s(group), _stolen_s() - stolen
        else:
            report = json.loads(line)
    if process.wait() != 0 or not report:
        raise MeasureError(f"the load generator ended with {process.returncode}")
    if not begin or report["requests"] < 1:
        raise MeasureError(f"no request was answered in the measured time: {report}")
    return Result(
        requests=int(report["requests"]),
        seconds=report["seconds"],
        server_cpu_s=end - begin,
        client_cpu_s=report["client_cpu_s"],
        p50_us=report["p50_us"],
        p99_us=report["p99_us"],
        errors=int(report["errors"]),
        non_200=int(report["non_200"]),
        resumed=int(report["resumed"]),
        stolen_s=stolen,
    )


ServerStart = Callable[[], AbstractContextManager[tuple[int, int]]]
"""Starts a server and gives (port, process group); it ends with the context."""


@dataclass
class Series:
    """All rounds of one server under one load, and the rounds of the yardstick beside it."""

    name: str
    results: list[Result] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    def line(self) -> str:
        results = self.results
        ratio = f"{median(self.ratios):6.2f}  ({min(self.ratios):.2f}-{max(self.ratios):.2f})" if self.ratios else ""
        return (
            f"{self.name:<34}{median(r.per_cpu_s for r in results):>10,.0f}"
            f"{median(r.per_wall_s for r in results):>10,.0f}"
            f"{median(r.p50_us for r in results):>8.0f}{median(r.p99_us for r in results):>8.0f}"
            f"{median(r.client_cpu_s / r.seconds for r in results):>8.2f}  {ratio}"
        )


HEADING = f"{'server':<34}{'req/CPU-s':>10}{'req/s':>10}{'p50 us':>8}{'p99 us':>8}{'client':>8}  ratio to the first"


def compare(
    servers: Mapping[str, ServerStart],
    load: Mapping[str, Load] | Load,
    rounds: int,
    loadgen: Path,
    pki: Mapping[str, Pki] | Pki,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Series]:
    """Run every server once a round, freshly started, in turn; a ratio compares neighbours of the same round.

    The first server is the yardstick. An error or an answer other than 200 makes the figure void: MeasureError.
    """
    series = {name: Series(name) for name in servers}
    first = next(iter(servers))
    for turn in range(rounds):
        for name, start in servers.items():
            chosen = load if isinstance(load, Load) else load[name]
            with start() as (port, group):
                result = run_load(loadgen, chosen, port, group, pki if isinstance(pki, Pki) else pki[name])
            if result.errors or result.non_200 or result.resumed:
                raise MeasureError(
                    f"{name}: {result.errors} errors, {result.non_200} answers other than 200, "
                    f"{result.resumed} resumed sessions"
                )
            series[name].results.append(result)
            if name != first:
                series[name].ratios.append(result.per_cpu_s / series[first].results[turn].per_cpu_s)
            if progress is not None:
                progress(f"round {turn + 1}/{rounds} {name}: {result.per_cpu_s:,.0f} req/CPU-s")
    return series


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
