"""Prometheus and Alertmanager with the shipped files, on free ports, and somebody who listens."""

from __future__ import annotations

import json
import os
import re
import shutil
import socketserver
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.ports import free_port
from tests.waiting import wait_until

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
ALERTMANAGER = "prometheus-alertmanager"
PATIENCE_S = 30.0


def program(name: str, package: str = "") -> str:
    """The path of a program; skips the test where it is not there."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs Debian package {package or name}")
    return found


def promtool(*words: str | Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool; whoever calls looks at what it says."""
    command = [program("promtool", "prometheus"), *map(str, words)]
    easy_on_cpu = os.environ | {"GOGC": "800"}
    return subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=110, env=easy_on_cpu
    )


def shipped(name: str) -> dict[str, Any]:
    """A YAML file of `deploy`."""
    found: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text("utf-8"))
    return found


@dataclass
class Heard:
    """What came in: notifications as Alertmanager sent them, with the time of arrival (s)."""

    webhook: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    chat: list[dict[str, Any]] = field(default_factory=list)
    mail: list[str] = field(default_factory=list)

    def alerts(self, name: str, status: str) -> list[dict[str, Any]]:
        """Alerts that the webhook was told of, repetitions included."""
        return [
            alert
            for _, body in list(self.webhook)
            for alert in body["alerts"]
            if alert["labels"]["alertname"] == name and alert["status"] == status
        ]


def _web_handler(heard: Heard) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/chat":
                heard.chat.append(body)
            else:
                heard.webhook.append((time.monotonic(), body))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    return Handler


def _mail_handler(heard: Heard) -> type[socketserver.StreamRequestHandler]:
    class Handler(socketserver.StreamRequestHandler):
        """As much of SMTP (RFC 5321) as it takes to be handed a letter."""

        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            while line := self.rfile.readline().strip().upper():
                if line.startswith(b"DATA"):
                    self.wfile.write(b"354 go on\r\n")
                    letter = b"".join(iter(self.rfile.readline, b".\r\n"))
                    heard.mail.append(letter.decode())
                self.wfile.write(b"221 bye\r\n" if line.startswith(b"QUIT") else b"250 fine\r\n")

    return Handler


class _MailServer(socketserver.ThreadingTCPServer):
    daemon_threads = True


@contextmanager
def listener(web_port: int = 0) -> Iterator[tuple[Heard, int, int]]:
    """Listen for HTTP and for mail; gives what comes in and the two ports."""
    heard = Heard()
    web = ThreadingHTTPServer(("127.0.0.1", web_port), _web_handler(heard))
    mail = _MailServer(("127.0.0.1", 0), _mail_handler(heard))
    threads = [threading.Thread(target=one.serve_forever, daemon=True) for one in (web, mail)]
    for thread in threads:
        thread.start()
    yield heard, web.server_address[1], mail.server_address[1]
    for server, thread in zip((web, mail), threads, strict=True):
        server.shutdown()
        server.server_close()
        thread.join()


class Alerting:
    """Both programs; nothing of the shipped files is changed but addresses."""

    def __init__(self, folder: Path, targets: dict[str, str], *, instant_rules: bool = False):
        """Watch `targets`, addresses by microscope; `instant_rules` (a control) forget at once."""
        self.folder = folder
        self.prometheus = f"127.0.0.1:{free_port()}"
        self.alertmanager = f"127.0.0.1:{free_port()}"
        self._targets = targets
        self._instant_rules = instant_rules
        self._running: list[subprocess.Popen[str]] = []

    @contextmanager
    def running(self) -> Iterator[Heard]:
        """Start both, and end them in the end."""
        programs = [program("prometheus"), program(ALERTMANAGER)]
        with listener() as (heard, web_port, mail_port):
            self._write_prometheus()
            self._write_alertmanager(web_port, mail_port)
            try:
                self._start_all(*programs)
                yield heard
            finally:
                for process in self._running:
                    process.terminate()
                    process.communicate(timeout=PATIENCE_S)

    def _write_prometheus(self) -> None:
        config = shipped("prometheus/prometheus.yml")
        (job,) = config["scrape_configs"]
        job["static_configs"] = [
            {"targets": [address], "labels": {"microscope": name}}
            for name, address in self._targets.items()
        ]
        (manager,) = config["alerting"]["alertmanagers"]
        manager["static_configs"] = [{"targets": [self.alertmanager]}]
        for name in config["rule_files"]:
            text = (DEPLOY / "prometheus" / name).read_text("utf-8")
            if self._instant_rules:
                text = re.sub(r"last_over_time\(([^()\[\]]*)\[\w+\]", r"(\1", text)
            (self.folder / name).write_text(text)
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config))

    def _write_alertmanager(self, web_port: int, mail_port: int) -> None:
        config = shipped("alertmanager/alertmanager.yml")
        config["global"] |= {
            "smtp_smarthost": f"127.0.0.1:{mail_port}",
            "smtp_require_tls": False,
            "slack_api_url": f"http://127.0.0.1:{web_port}/chat",
        }
        for receiver in config["receivers"]:
            for webhook in receiver.get("webhook_configs", ()):
                webhook["url"] = f"http://127.0.0.1:{web_port}/icewatch"
        for name in config["templates"]:
            shutil.copy(DEPLOY / "alertmanager" / name, self.folder)
        (self.folder / "alertmanager.yml").write_text(yaml.safe_dump(config))

    def _start_all(self, prometheus: str, alertmanager: str) -> None:
        self._start(
            alertmanager,
            f"--config.file={self.folder}/alertmanager.yml",
            f"--storage.path={self.folder}/alertmanager",
            f"--web.listen-address={self.alertmanager}",
            "--cluster.listen-address=",
        )
        self._start(
            prometheus,
            f"--config.file={self.folder}/prometheus.yml",
            f"--storage.tsdb.path={self.folder}/prometheus",
            f"--web.listen-address={self.prometheus}",
        )
        for address in (self.alertmanager, self.prometheus):
            wait_until(partial(_is_ready, address), f"{address}/-/ready", PATIENCE_S)

    def _start(self, *command: str) -> None:
        log = (self.folder / f"{Path(command[0]).name}.log").open("w")
        with log:
            self._running.append(
                subprocess.Popen(command, stdout=log, stderr=log, text=True, cwd=self.folder)
            )

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Ask Prometheus; gives the samples of an instant vector."""
        words = urllib.parse.urlencode({"query": expression})
        address = f"http://{self.prometheus}/api/v1/query?{words}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
