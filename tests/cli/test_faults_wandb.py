"""Whatever becomes of W&B's server, or of its own process: the training ends well, and the run is on disk."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

USER = {"id": "1", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}
BUCKET = {
    "id": "1",
    "displayName": "run",
    "config": "{}",
    "project": {"id": "1", "name": "nelbo", "entity": {"id": "1", "name": "me"}},
    "historyLineCount": 0,
}


class Server(ThreadingHTTPServer):
    """As much of W&B's server as a run needs. ``answer`` may be exchanged while it serves."""

    daemon_threads = True

    def __init__(self, answer: Callable[["Server", str, bytes], tuple[int, dict]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.closing = threading.Event()
        self.streamed = 0
        self.history: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address) -> None:
        """Clients that went away are the rule here."""

    def well(self, path: str, body: bytes) -> tuple[int, dict]:
        """What W&B would answer."""
        if path.endswith("file_stream"):
            self.streamed += 1
            self.history += (
                json.loads(body).get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
            )
        if not path.endswith("graphql"):
            return 200, {}
        query = json.loads(body)
        operation, variables = query.get("operationName"), query.get("variables", {})
        if operation == "UpsertBucket":
            bucket = {**BUCKET, "name": variables.get("name")}
            return 200, {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in variables["files"]]
            return 200, {"data": {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}}
        return 200, {"data": {"viewer": USER, "serverInfo": {"features": []}}}

    def never(self, path: str, body: bytes) -> tuple[int, dict]:
        """No answer until the test is over."""
        self.closing.wait()
        return 500, {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args) -> None:
        """Not to the terminal."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        status, content = self.server.answer(self.server, self.path, body)
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST  # noqa: N815


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts a server that answers as told."""
    servers = []

    def start(answer) -> Server:
        server = Server(answer)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    yield start
    for server in servers:
        server.closing.set()
        server.shutdown()
        server.server_close()


def refuse(status: int):
    return lambda server, path, body: (status, {"errors": [{"message": "not today"}]})


def well_until_streamed(then):
    """As W&B would, until the first piece of the run has arrived."""

    def answer(server: Server, path: str, body: bytes) -> tuple[int, dict]:
        return server.well(path, body) if server.streamed == 0 else then(server, path, body)

    return answer


def start(run: Path, url: str, *arguments: str) -> subprocess.Popen:
    command = [
        sys.executable, "train.py", f"hydra.run.dir={run}", "logger.wandb.init_timeout=4",
        "logger.wandb.finish_timeout=4", *arguments,
    ]  # fmt: skip
    environment = {**os.environ, "WANDB_BASE_URL": url, "WANDB_API_KEY": "0" * 40}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def end(process: subprocess.Popen) -> list[str]:
    """Wait for a training to end well; the lines that it wrote to stderr."""
    try:
        _, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return err.splitlines()


def children(pid: int) -> list[int]:
    """Processes that any thread of a process started."""
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in listed for child in path.read_text().split()]


def is_whole(run: Path) -> None:
    for name in ("summary.json", "metrics.csv", "bound.parquet", "report.html", "checkpoints/last.ckpt"):
        assert (run / name).exists(), name


def is_told_and_kept(lines: list[str], run: Path) -> None:
    """One line, which says the command; and where it points to, the run is, to its very end."""
    assert len(lines) == 1, lines
    found = re.search(r"^warning: W&B: .+; `wandb sync (.+)` uploads it later$", lines[0])
    assert found, lines
    folder = Path(found[1])
    assert folder.parent.resolve() == (run / "wandb").resolve()
    assert b"test/bpd" in next(folder.glob("*.wandb")).read_bytes()


FAULTS = {
    "never answers": Server.never,
    "refuses the key": refuse(401),
    "forbids": refuse(403),
    "is broken": refuse(500),
    "breaks in the middle": well_until_streamed(refuse(500)),
    "refuses in the middle": well_until_streamed(refuse(401)),
    "falls silent in the middle": well_until_streamed(Server.never),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that(fault, serve, tiny, tmp_path):
    run = tmp_path / "run"
    lines = end(start(run, serve(FAULTS[fault]).url, *tiny))
    is_told_and_kept(lines, run)
    is_whole(run)


def test_unreachable_wandb_server_does_not_stop_training(tiny, tmp_path):
    run = tmp_path / "run"
    lines = end(start(run, "http://127.0.0.1:9", *tiny))
    is_told_and_kept(lines, run)
    is_whole(run)


def test_working_wandb_server_receives_run_without_warning(serve, tiny, tmp_path):
    server = serve(Server.well)
    assert end(start(tmp_path / "run", server.url, *tiny)) == []
    assert any("test/bpd" in line for line in server.history)


def test_training_survives_death_of_wandb_process(serve, tiny, tmp_path):
    run = tmp_path / "run"
    long = ("trainer.max_steps=600", "trainer.val_check_interval=300", "trainer.log_every_n_steps=30")
    process = start(run, serve(Server.well).url, *tiny, *long)
    metrics = run / "metrics.csv"
    while not metrics.exists() or metrics.read_text().count("\n") < 2:
        assert process.poll() is None
        time.sleep(0.05)
    core = [
        child for child in children(process.pid) if "wandb-core" in Path(f"/proc/{child}/comm").read_text()
    ]
    os.kill(core[0], signal.SIGKILL)
    lines = end(process)
    assert len(lines) == 1, lines
    assert "nothing more is logged there" in lines[0]
    is_whole(run)
