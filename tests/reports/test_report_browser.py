"""The page in a browser: draws everything, fetches nothing, complains of nothing, fits every screen.

Skipped where there is no browser. ``NELBO_BROWSER=1`` makes that a failure; its value may also be a browser's
path.
"""

import pytest
import torch

from nelbo.reports.html import write_report


@pytest.fixture(scope="module")
def pages(finished_run, make_run, make_evaluation, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    other = make_run(folder / "other", seed=1, better=0.9)
    evaluated = make_evaluation(folder / "evaluated", timesteps=torch.tensor([3, 8, 20, 60, 120, 200]))
    shown = {
        "one": [finished_run],
        "two": [finished_run, other],
        "evaluated": [evaluated],
        "mixed": [finished_run, evaluated],
    }
    for name, folders in shown.items():
        write_report(folders, folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in shown}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "charts", "size", "scheme"),
    [
        ("one", 7, "desktop", "light"),
        ("one", 7, "phone", "dark"),
        ("two", 8, "desktop", "dark"),
        ("two", 8, "phone", "light"),
        ("evaluated", 4, "desktop", "light"),
        ("evaluated", 4, "phone", "dark"),
        ("mixed", 9, "desktop", "dark"),
        ("mixed", 9, "phone", "light"),
    ],
)
def test_every_view_is_drawn(pages, visit, name, charts, size, scheme):
    seen = visit(pages[name], size, scheme)
    page = seen.page
    cards = page.query_selector_all(".card:has(.plot)")
    assert len(cards) == charts
    for card in cards:
        title = card.query_selector("h2").inner_text()
        for tab in card.query_selector_all(".tabs button") or [None]:
            if tab:
                tab.click()
            (plot,) = [plot for plot in card.query_selector_all(".plot") if plot.is_visible()]
            drawn = plot.evaluate(
                "p => ({svg: p.querySelectorAll('.main-svg').length, width: p.getBoundingClientRect().width,"
                " inside: p.querySelector('.main-svg').getBoundingClientRect().width,"
                " marks: p.querySelectorAll('.trace, .hm image, .point, .plot image').length})"
            )
            assert drawn["svg"] > 0, title
            assert drawn["marks"] > 0, (title, tab and tab.inner_text())
            assert abs(drawn["inside"] - drawn["width"]) < 2, title
    assert page.evaluate("document.documentElement.scrollWidth") == seen.width
    assert seen.errors == []
    assert seen.console == []
    assert [url for url in seen.requests if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.mark.slow
def test_the_page_follows_from_light_to_dark(pages, visit):
    seen = visit(pages["one"], "desktop")
    colour = "getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    light = seen.page.evaluate(colour)
    seen.page.emulate_media(color_scheme="dark")
    # the page's own rules forbid evaluating strings, so the waiting is done here
    assert any(seen.page.wait_for_timeout(50) or seen.page.evaluate(colour) != light for _ in range(200))


@pytest.mark.slow
def test_the_slider_goes_through_training(pages, visit):
    page = visit(pages["one"], "desktop").page
    shown = lambda: page.eval_on_selector_all(".frame img:not([hidden])", "x => x.map(i => i.dataset.step)")  # noqa: E731
    assert shown() == ["400"]
    page.fill(".strip input", "0")
    assert shown() == ["50"]
    assert page.inner_text(".strip output") == "step 50"
    assert page.evaluate("document.querySelector('.frame img:not([hidden])').naturalWidth") == 72
