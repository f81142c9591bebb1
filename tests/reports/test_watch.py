"""``nelbo watch``: the page follows the runs, for this machine alone."""

import http.client
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nelbo import __main__ as nelbo_main
from nelbo.reports.watch import WatchedRuns, serve
from nelbo.runs.files import RunFolderError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ask(finished_run) -> Iterator:
    """Sends a request to a server that watches a run."""
    server = serve(WatchedRuns([finished_run]), 0)
    port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def send(path: str, host: str | None = None, method: str = "GET") -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request(method, path, headers={"Host": host or f"127.0.0.1:{port}"})
        return connection.getresponse()

    yield send
    server.shutdown()
    server.server_close()


def test_the_page_and_its_version_are_served_and_nothing_else(ask, finished_run):
    page, version = ask("/"), ask("/version")
    assert (page.status, version.status) == (200, 200)
    assert f'data-version="{version.read().decode()}"' in page.read().decode()
    assert "no-store" in page.headers["Cache-Control"]
    for path in ("/metrics.csv", "/../metrics.csv", f"{finished_run}/metrics.csv", "//etc/passwd", "/?x"):
        assert ask(path).status == 404
    assert ask("/", method="POST").status == 501


@pytest.mark.parametrize("host", ["example.org", "example.org:80", "127.0.0.1.example.org", "127.0.0.1:1"])
def test_a_request_to_another_name_is_refused(ask, host):
    assert ask("/", host).status == 421


def test_the_server_listens_on_the_loopback_address_only(finished_run):
    server = serve(WatchedRuns([finished_run]), 0)
    try:
        assert server.server_address[0] == "127.0.0.1"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", server.server_address[1]), timeout=5)
    finally:
        server.server_close()


@pytest.fixture
def watched(make_run, tmp_path, monkeypatch):
    """The watched folder of two runs, drawn without a pause."""
    monkeypatch.setattr("nelbo.reports.watch.DUTY", 0)
    runs = [make_run(tmp_path / "runs" / name, seed=seed) for seed, name in enumerate(("first", "second"))]
    return WatchedRuns([tmp_path / "runs"]), runs


def test_a_changed_file_makes_a_new_version(watched):
    pages, (first, _) = watched
    before = pages.version
    pages.refresh()
    assert pages.version == before
    path = first / "metrics.csv"
    path.write_text(path.read_text() + path.read_text().splitlines()[-1] + "\n")
    pages.refresh()
    assert pages.version != before


def test_a_run_that_disappears_is_one_line_and_a_notice_and_stays_on_the_page(watched, capsys):
    pages, (first, second) = watched
    shutil.rmtree(second)
    for _ in range(2):
        pages.refresh()
    assert capsys.readouterr().err == f"{second} has disappeared; shown as it was read last\n"
    assert f"{second} has disappeared" in pages.page
    assert pages.page.count('<th scope="row"><span class="dot"') >= 2
    shutil.rmtree(first.parent)
    pages.refresh()
    assert f"{first} has disappeared" in pages.page


def test_a_run_that_appears_is_added(watched, make_run):
    pages, (first, _) = watched
    make_run(first.parent / "third", seed=2)
    pages.refresh()
    assert "Variational bound of 3 runs" in pages.page


def test_a_run_without_results_is_waited_for(tmp_path, make_run, monkeypatch):
    monkeypatch.setattr("nelbo.reports.watch.DUTY", 0)
    (tmp_path / "run/.hydra").mkdir(parents=True)
    (tmp_path / "run/.hydra/config.yaml").write_text("{}")
    pages = WatchedRuns([tmp_path / "run"])
    assert "No results yet" in pages.page
    shutil.rmtree(tmp_path / "run")
    make_run(tmp_path / "run")
    pages.refresh()
    assert "No results yet" not in pages.page


def test_a_missing_folder_and_a_used_port_are_one_line(finished_run, tmp_path, capsys):
    with pytest.raises(RunFolderError, match="there is no such folder"):
        WatchedRuns([tmp_path / "missing"])
    with socket.socket() as used:
        used.bind(("127.0.0.1", 0))
        used.listen()
        port = used.getsockname()[1]
        assert nelbo_main.main(["watch", str(finished_run), "--port", str(port)]) == 1
    assert capsys.readouterr().err == (
        f"error: --port {port} cannot be used (Address already in use); --port 0 takes a free one\n"
    )
    with pytest.raises(SystemExit):
        nelbo_main.main(["watch", str(finished_run), "--port", "70000"])
    assert "'70000' is not a port: 0 to 65535" in capsys.readouterr().err


@pytest.mark.slow
def test_a_chart_changes_in_a_browser_while_a_run_trains(browser, finished_run, tiny, tmp_path):
    """Two runs are overlaid, one of them trains; Ctrl-C ends the command."""
    runs = tmp_path / "runs"
    shutil.copytree(finished_run, runs / "before")
    options = {"max_steps": 100000, "val_check_interval": 200, "log_every_n_steps": 100}
    trainer = [f"trainer.{name}={value}" for name, value in options.items()]
    script, folder = str(ROOT / "train.py"), f"hydra.run.dir={runs / 'now'}"
    training = subprocess.Popen(
        [sys.executable, script, *tiny, *trainer, "logger=none", "checkpoint_every=100000", folder],
        stdout=subprocess.DEVNULL,
    )
    command = [sys.executable, "-m", "nelbo", "watch", str(runs)]
    watch = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert watch.stdout is not None
        address = watch.stdout.readline().split()[0]
        context = browser.new_context(viewport={"width": 1000, "height": 500})
        page = context.new_page()
        console, errors, requests = [], [], []
        page.on("console", lambda message: console.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(address)
        names = "#chain .plot:not([hidden]) .legendtext"
        assert wait(page, lambda: "now" in " ".join(page.locator(names).all_text_contents()))
        assert "before" in " ".join(page.locator(names).all_text_contents())
        page.click("#training .tabs button:last-child")
        chosen = page.get_attribute("#training .tabs button:last-child", "data-view")
        page.evaluate("window.scrollTo(0, 300)")
        version, drawn = (page.get_attribute("main", "data-version"), chart(page))
        assert wait(page, lambda: page.get_attribute("main", "data-version") != version)
        assert wait(page, lambda: chart(page) != drawn)
        assert page.evaluate("window.scrollY") == 300
        pressed = page.get_attribute("#training .tabs button[aria-pressed=true]", "data-view")
        assert pressed == chosen
        assert (console, errors) == ([], [])
        assert all(url.startswith((address, "data:", "blob:")) for url in requests)
        context.close()
        watch.send_signal(2)
        assert watch.wait(30) == 0
        assert watch.stderr is not None
        assert watch.stderr.read() in ("", f"{runs / 'now'}: no results yet\n")
    finally:
        for process in (watch, training):
            process.kill()
            process.wait()


def chart(page) -> str:
    return page.inner_html("#training .plot:not([hidden]) .main-svg")


def wait(page, condition, seconds: int = 300) -> bool:
    """Whether a condition comes true; the page's own rules forbid evaluating strings in it."""
    return any(condition() or page.wait_for_timeout(250) for _ in range(4 * seconds))
