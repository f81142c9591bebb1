"""Names from outside are shown as text: no script runs, no tag opens, and no terminal is commanded."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path, PurePath

import pytest

from nelbo.__main__ import main
from nelbo.reports.html import write_report
from nelbo.reports.sweep import SweptRun, show_sweep
from nelbo.runs.job_status import JobStatus
from nelbo.text import plotly_text, printable

SCRIPT = "window.ran=1"

NAMES = (
    f"<script>{SCRIPT}</script>",
    f"<sub><img src=x onerror={SCRIPT}>",
    f"<sub>0</sub><svg onload={SCRIPT}>",
    f"<img src=x onerror='{SCRIPT}'>",
    f'<img src=x onerror="{SCRIPT}">',
    f"<svg><animate onbegin={SCRIPT} attributeName=x dur=1s>",
    f"<svg><script>{SCRIPT}</script></svg>",
    f"<math><mtext><img src=x onerror={SCRIPT}>",
    "<iframe srcdoc='<script>parent.ran=1</script>'></iframe>",
    "<iframe src=javascript:parent.ran=1>",
    f"<body onload={SCRIPT}>",
    f"<details open ontoggle={SCRIPT}>",
    f"<input autofocus onfocus={SCRIPT}>",
    f"<video><source onerror={SCRIPT}>",
    f"<a href='javascript:{SCRIPT}'>link</a>",
    f'<a href="javascript:{SCRIPT}">link</a>',
    f"<a href='java&#115;cript:{SCRIPT}' target=_self>link</a>",
    f"<a href='data:text/html,<script>{SCRIPT}</script>'>link</a>",
    f"<b>bold</b><br><a href='vbscript:{SCRIPT}'>link</a>",
    f"</script><script>{SCRIPT}</script>",
    f"</title><script>{SCRIPT}</script>",
    f"</style><script>{SCRIPT}</script>",
    f"</pre></details><script>{SCRIPT}</script>",
    f"<!--<script>{SCRIPT}",
    f"--><script>{SCRIPT}</script><!--",
    f"<![CDATA[<script>{SCRIPT}</script>]]>",
    f"<meta http-equiv=refresh content='0;url=javascript:{SCRIPT}'>",
    "<base href='https://example.invalid'>",
    f"<form action='javascript:{SCRIPT}'><button>go</button></form>",
    f"<object data='javascript:{SCRIPT}'>",
    "<link rel=stylesheet href='https://example.invalid/x.css'>",
    f'" onmouseover="{SCRIPT}" x="',
    f"' autofocus onfocus='{SCRIPT}' x='",
    f"`${{{SCRIPT}}}`",
    f'"}};{SCRIPT};//',
    f"\\u003cscript\\u003e{SCRIPT}\\u003c/script\\u003e",
    f"&lt;script&gt;{SCRIPT}&lt;/script&gt;",
    f"&#60;img src=x onerror={SCRIPT}&#62;",
    "{{ cycler.__init__.__globals__.os.system('touch ran') }}{% raw %}",
    "%{customdata.constructor} %{fullData.name}",
    f"\u202e<script>{SCRIPT}</script>\u202c \u05d0\u05d1",
    f"\udc80<script>{SCRIPT}</script>",
    f"\x1b]8;;javascript:{SCRIPT}\x07link\x1b]8;;\x07\x1b[2J",
    "[red]red[/red] [link=https://example.invalid]link[/link] :boom:",
    "__proto__",
    "$\\alpha$ $\\href{javascript:window.ran=1}{x}$",
)

OPENED = re.compile(r"<(?!/?(?:sub|sup|b|extra)>|br>)[^>]*>?")  # in a label, and not one of our own tags
PARTS = ("bpd", "L_0", "L_t", "L_T")
SCRIPTS = 3  # the figures as JSON, plotly, and the page's own


def write_hostile(base: Path, folder: Path, name: str) -> Path:
    """A copy of an evaluation in which all that comes from outside has such a name. Returns its folder."""
    run = folder / PurePath(name)
    shutil.copytree(base, run)
    file = run / "evaluation.json"
    content = json.loads(file.read_text())
    content["config"]["data"] = {"_target_": f"nelbo.{name}", "batch_size": name, name: 1}
    content["ledger"] |= {"data": name, "estimator": name, "precision": name, "steps": name, name: name}
    content["classes"] = [
        {"class": i, "name": text, "count": 2}
        | {part + end: 1.0 for part in PARTS for end in ("", "_stderr")}
        for i, text in enumerate(NAMES)
    ]
    content["variances"][name] = content["variances"].pop("FixedSmall")
    content |= {f"test/share/{kind}{name}": 0.1 for kind in ("L_", "t_2_", "t_")}
    content["checkpoint"] = name
    file.write_text(json.dumps(content))
    return run


@pytest.fixture(scope="module")
def runs(make_evaluation, tmp_path_factory) -> dict[str, Path]:
    """A run for each name."""
    folder = tmp_path_factory.mktemp("hostile")
    base = make_evaluation(folder / "base")
    return {name: write_hostile(base, folder / "runs", name) for name in NAMES}


@pytest.fixture(scope="module")
def trainings(make_run, tmp_path_factory) -> dict[str, Path]:
    """A training for each name: the maps of several have their names as labels of tabs."""
    folder = tmp_path_factory.mktemp("hostile_trainings")
    base = make_run(folder / "base")
    return {name: shutil.copytree(base, folder / "runs" / PurePath(name)) for name in NAMES}


class Elements(HTMLParser):
    """The elements of a page, their attributes, and its text outside of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text: list[str] = []
        self.figures = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        if self.tags[-1:] == ["script"] and self.tags.count("script") == 1:
            self.figures += data
        else:
            self.text.append(data)


def labels(node) -> list[str]:
    """All texts of a figure."""
    if isinstance(node, dict):
        return [text for value in node.values() for text in labels(value)]
    if isinstance(node, list):
        return [text for value in node for text in labels(value)]
    return [node] if isinstance(node, str) else []


@pytest.mark.slow
def test_names_open_no_tag_in_a_report(runs, make_evaluation, tmp_path):
    harmless = [make_evaluation(tmp_path / name) for name in "ab"]
    write_report(harmless, tmp_path / "harmless.html")
    chosen = NAMES[:: len(NAMES) // 8]
    write_report([runs[name] for name in chosen], tmp_path / "hostile.html")
    expected = Elements((tmp_path / "harmless.html").read_text())
    found = Elements((tmp_path / "hostile.html").read_text())
    assert set(found.tags) <= set(expected.tags) | {"ul", "li"}  # what is not comparable
    assert found.attributes <= expected.attributes | {"aria-label"}
    assert found.tags.count("script") == SCRIPTS
    shown = "".join(found.text)
    drawn = labels(json.loads(found.figures))
    assert [text for text in drawn if OPENED.search(text)] == []
    for name in chosen:
        assert shown.count(printable(PurePath(name))) > 1
        assert plotly_text(PurePath(name)) in drawn  # legends
    assert {plotly_text(name) for name in NAMES} <= set(drawn)  # classes


@pytest.mark.slow
def test_names_of_trainings_open_no_tag_in_a_report(trainings, finished_run, make_run, tmp_path):
    write_report([finished_run, make_run(tmp_path / "other")], tmp_path / "harmless.html")
    chosen = (NAMES[1], NAMES[2], "__proto__")
    write_report([trainings[name] for name in chosen], tmp_path / "hostile.html")
    expected = Elements((tmp_path / "harmless.html").read_text())
    found = Elements((tmp_path / "hostile.html").read_text())
    assert set(found.tags) <= set(expected.tags)
    assert found.attributes <= expected.attributes
    assert list(json.loads(found.figures)["heat_map"]) == [str(PurePath(name)) for name in chosen]


def test_the_policy_allows_the_scripts_of_the_page_alone(runs, tmp_path):
    write_report(list(runs.values())[:1], tmp_path / "page.html")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', (tmp_path / "page.html").read_text())
    rules = dict(rule.split(" ", 1) for rule in policy[1].split("; "))
    sources = rules.pop("script-src").split()
    assert len(sources) == 2
    assert all(re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", source) for source in sources)
    assert rules == {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'",
        "img-src": "data: blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]8;;x\x07", r"\x1b]8;;x\x07"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("\x9b2J\x7f", r"\x9b2J\x7f"),
        ("\u202etxt.exe", r"\u202etxt.exe"),
        ("\udc80\u2028", r"\udc80\u2028"),
        ("Zürich 北京 אב é [red]", "Zürich 北京 אב é [red]"),
    ],
)
def test_characters_that_act_are_shown_as_escapes(text, shown):
    assert printable(text) == shown


@pytest.mark.slow
def test_names_do_not_command_the_terminal(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    swept = [
        SweptRun(name, run, {name: name}, True, JobStatus(name, None, 1.0)) for name, run in runs.items()
    ]
    show_sweep(tmp_path, swept, f"resume={NAMES[0]}")
    assert main(["compare", *map(str, list(runs.values())[-6:])]) == 0
    assert main(["report", *map(str, list(runs.values())[-6:]), "--output", "\x1b[31m.html"]) == 0
    assert main(["report", "\x1b[31m"]) == 1
    out, err = capsys.readouterr()
    assert re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", out + err) == []
    assert "[red]red[/red] [link=https:" in out
    assert ":boom:" in out
    assert r"\x1b[31m.html" in out
    assert r"\x1b[31m: there is no such folder" in err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["single", "comparison", "sweep"])
def test_no_name_runs_a_script_in_a_browser(kind, runs, visit, tmp_path):
    pages = {
        "single": lambda: [(name, [run]) for name, run in runs.items()],
        "comparison": lambda: [(None, list(runs.values()))],
        "sweep": lambda: [],
    }[kind]()
    for number, (_, folders) in enumerate(pages):
        write_report(folders, tmp_path / f"{number}.html")
    if kind == "sweep":
        swept = [
            SweptRun(name, run, {name: name}, True, JobStatus(None, 1.0, 1.0)) for name, run in runs.items()
        ]
        show_sweep(tmp_path, swept, None)
        pages = [(None, list(runs.values()))]
        (tmp_path / "report.html").rename(tmp_path / "0.html")
    for number, (name, _) in enumerate(pages):
        seen = visit(tmp_path / f"{number}.html", "desktop")
        look_at_everything(seen.page)
        assert seen.page.evaluate("window.ran") is None, name
        assert seen.page.evaluate("document.querySelectorAll('a, iframe, object, base, form').length") == 0
        assert (seen.console, seen.errors, seen.dialogs) == ([], [], []), name
        assert [url for url in seen.requests if not url.startswith(("file:", "data:", "blob:"))] == []
        texts = seen.page.inner_text("body")
        for shown in NAMES if name is None else [name]:
            assert " ".join(printable(PurePath(shown)).split()) in " ".join(texts.split())
        seen.page.context.close()


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, len(NAMES), 6))
def test_no_name_of_a_training_runs_a_script_in_a_browser(first, trainings, visit, tmp_path):
    """A comparison of trainings has the names as labels of tabs as well."""
    names = NAMES[first : first + 6]
    write_report([trainings[name] for name in names], tmp_path / "page.html")
    seen = visit(tmp_path / "page.html", "desktop")
    look_at_everything(seen.page)
    assert seen.page.evaluate("window.ran") is None
    said = [message for message in seen.console if not message.startswith("WARN: Too many auto-margin")]
    assert (said, seen.errors, seen.dialogs) == ([], [], [])  # plotly warns of names too long for a legend
    assert [url for url in seen.requests if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.mark.slow
def test_a_script_that_got_into_the_page_would_not_run(runs, visit, tmp_path):
    """The policy by itself, whatever is not escaped; and what the test above would see."""
    write_report(list(runs.values())[:1], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    put_in = (
        f"<script>{SCRIPT}</script><img src=x onerror={SCRIPT}><a href='javascript:{SCRIPT}' id=link>x</a>"
    )
    (tmp_path / "page.html").write_text(page.replace("<main>", f"<main>{put_in}", 1))
    seen = visit(tmp_path / "page.html", "desktop")
    seen.page.click("#link")
    assert seen.page.evaluate("window.ran") is None
    assert sum("Content Security Policy" in message for message in seen.console) >= 3
    unprotected = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", page).replace(
        "<main>", f"<main>{put_in}", 1
    )
    (tmp_path / "unprotected.html").write_text(unprotected)
    assert visit(tmp_path / "unprotected.html", "desktop").page.evaluate("window.ran") == 1


def look_at_everything(page) -> None:
    """Open every view and every detail, and point at the first point of every line."""
    for tab in page.query_selector_all(".tabs button"):
        tab.click()
        page.evaluate(
            "for (const plot of document.querySelectorAll('.plot:not([hidden])'))"
            " plot.data.forEach((_, i) => { try { Plotly.Fx.hover(plot, [{curveNumber: i, pointNumber: 0}]) }"
            " catch { } })"
        )
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
