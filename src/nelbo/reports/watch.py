"""Serve the report of runs on this machine while they train."""

import secrets
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from nelbo.reports.html.page import Watch, render, render_waiting
from nelbo.runs.files import RunFolderError
from nelbo.runs.run_folder import FILES, SAMPLES, Run, read_run, run_folders
from nelbo.text import printable

HOST = "127.0.0.1"
DUTY = 10  # a new page is drawn at most every DUTY times as long as drawing takes
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class WatchedRuns:
    """The page of the runs in some folders, drawn again when their files have changed.

    A run that disappears or cannot be read is shown as it was read last, with a notice.

    Args:
        folders: of runs, of sweeps, or of several runs.

    Raises:
        RunFolderError: for a folder that does not exist.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        for folder in folders:
            if not folder.is_dir():
                raise RunFolderError(f"{folder}: there is no such folder")
        self.folders = [folder.resolve() for folder in folders]
        self.page = ""
        self.version = ""
        self._runs: dict[Path, Run] = {}
        self._stamp: object = None  # of the files that the page shows
        self._notices: list[str] = []
        self._next = 0.0  # earliest time of the next drawing
        self._lock = threading.Lock()
        self.refresh()

    def refresh(self) -> None:
        """Read the runs and draw the page, if files have changed and the last drawing is long enough ago."""
        with self._lock:
            if time.monotonic() < self._next:
                return
            paths = self._paths()
            stamp = {path: _stamp(path) for path in paths}
            if stamp == self._stamp:
                return
            started = time.monotonic()
            notices = [notice for path in paths if (notice := self._read(path))]
            for notice in notices:
                if notice not in self._notices:
                    print(printable(notice), file=sys.stderr, flush=True)
            self._notices, self._stamp = notices, stamp
            watch = Watch(secrets.token_hex(8), notices)
            runs = [self._runs[path] for path in paths if path in self._runs]
            try:
                self.page = render(runs, watch) if runs else render_waiting(watch)
                self.version = watch.version
            except OSError:  # an image has just been removed
                self._stamp = None
            self._next = time.monotonic() + DUTY * (time.monotonic() - started)

    def _paths(self) -> list[Path]:
        """The folders of the runs: those of before, and new ones."""
        found = dict.fromkeys(self._runs)
        for folder in self.folders:
            found |= dict.fromkeys(run_folders([folder]))
        return [path for path in found if not path.is_symlink()]

    def _read(self, path: Path) -> str | None:
        """Read a run. Returns what is wrong with it, or None."""
        try:
            self._runs[path] = read_run(path)
            return None
        except RunFolderError as error:
            known = self._runs.get(path)
            if path.is_dir() and known is None:
                return f"{path}: no results yet" if not _has_results(path) else str(error)
            if known is not None:  # its images are read when the page is drawn
                existing = {step: file for step, file in known.samples.items() if file.is_file()}
                self._runs[path] = replace(known, samples=existing)
            reason = str(error) if path.is_dir() else f"{path} has disappeared"
            return f"{reason}; shown as it was read last" if known is not None else reason


def serve(watched: WatchedRuns, port: int) -> ThreadingHTTPServer:
    """A server of the page on the loopback address. The caller runs and closes it.

    Args:
        watched: the page.
        port: 0 for a free one.

    Raises:
        OSError: naming the port, if it is used or not allowed.
    """
    try:
        return _Server(watched, port)
    except OSError as error:
        reason = f"--port {port} cannot be used ({error.strerror}); --port 0 takes a free one"
        raise OSError(reason) from error


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, watched: WatchedRuns, port: int) -> None:
        super().__init__((HOST, port), _Handler)
        self.watched = watched

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser may close a connection at any time; other errors are printed."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # pyright: ignore[reportArgumentType]


class _Handler(BaseHTTPRequestHandler):
    """Answers ``/`` and ``/version``. No path of a request names a file."""

    server: _Server
    timeout = 30

    def do_GET(self) -> None:  # the name that http.server calls
        """Answer a request to this host. Another name could be that of a foreign page (DNS rebinding)."""
        port = self.server.server_address[1]
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return
        watched = self.server.watched
        if self.path == "/version":
            watched.refresh()
            self._answer(watched.version, "text/plain")
        elif self.path == "/":
            self._answer(watched.page, "text/html")
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _answer(self, text: str, kind: str) -> None:
        body = text.encode("utf-8")
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def end_headers(self) -> None:
        """Add the headers of every answer."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed for a request."""


def _has_results(folder: Path) -> bool:
    return any((folder / name).is_file() for name in FILES)


def _stamp(path: Path) -> list[tuple[str, int, int]]:
    """Names, times and sizes of the files of a run that the page shows; none for one that has disappeared."""
    stamps = []
    for file in (*(path / name for name in FILES), *sorted((path / SAMPLES).glob("*.png"))):
        try:
            status = file.stat()
        except OSError:
            continue
        stamps.append((file.name, status.st_mtime_ns, status.st_size))
    return stamps
