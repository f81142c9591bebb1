"""Figures from HTML pages in the style of the report, with its charts and enlarged images."""

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import plotly.graph_objects as go
import plotly.offline
from torch import Tensor

from figures.browser import QUIET, find_browser
from nelbo.reports.html.page import ASSETS
from nelbo.runs.images import to_image

if TYPE_CHECKING:
    from playwright.sync_api import ViewportSize

IMAGES = Path(__file__).parents[1] / "docs" / "images"
WINDOW: "ViewportSize" = {"width": 1360, "height": 900}
BELOW = 20  # pixels below the last element of a figure
STYLE = """
body { background: #ffffff; }
main { padding: 20px 24px; margin: 0; width: max-content; max-width: none; }
table.images { border-collapse: separate; border-spacing: 0; }
table.images th, table.images td { border: 0; padding: 7px 22px 7px 0; vertical-align: middle; }
table.images thead th { padding-bottom: 2px; }
table.images tr > :last-child { padding-right: 0; }
.tiles { display: grid; gap: 3px; width: max-content; }
.tiles img { display: block; image-rendering: pixelated; border-radius: 2px; }
"""


def page(body: str, charts: Mapping[str, go.Figure] | None = None) -> str:
    """An HTML page in the style of the report.

    Args:
        body: HTML; ``<div class="plot" data-card="NAME" data-view=""></div>`` is replaced by a chart.
        charts: charts by name.
    """
    css, script = ((ASSETS / name).read_text() for name in ("page.css", "page.js"))
    drawn = {name: {"": json.loads(str(chart.to_json()))} for name, chart in (charts or {}).items()}
    figures = json.dumps(drawn).replace("<", "\\u003c")
    plotly_js = plotly.offline.get_plotlyjs() if drawn else "const Plotly = null;"
    return (
        f'<!doctype html><meta charset="utf-8"><style>{css}{STYLE}</style><body><main>{body}</main>'
        f'<script type="application/json" id="figures">{figures}</script>'
        f"<script>{plotly_js}</script><script>{script}</script>"
    )


def tiles(images: Tensor, columns: int, size: int) -> str:
    """A grid of images (B, C, H, W) uint8, each ``size`` pixels wide."""
    pictures = "".join(f'<img src="{_uri(image)}" width="{size}" height="{size}">' for image in images)
    return f'<div class="tiles" style="grid-template-columns: repeat({columns}, {size}px)">{pictures}</div>'


def save(source: str | Path, name: str, ends_with: str | None = None, scale: float = 2.0) -> None:
    """Render a page in a headless browser, and save a screenshot in docs/images.

    Args:
        source: HTML of the page, or the path of an HTML file.
        name: file name of the figure.
        ends_with: CSS selector of the last element of the figure; None for the whole page.
        scale: pixels of the figure per pixel of the page.

    Raises:
        FileNotFoundError: if there is no browser; set ``NELBO_BROWSER`` to the path of one.
    """
    from playwright.sync_api import sync_playwright

    path = IMAGES / name
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=list(QUIET))
        window = browser.new_page(viewport=WINDOW, device_scale_factor=scale, color_scheme="light")
        if isinstance(source, Path):
            window.goto(source.resolve().as_uri())
        else:
            window.set_content(source)
        window.wait_for_load_state("networkidle")
        if ends_with is None:
            window.locator("main").screenshot(path=path)
        else:
            last = window.locator(ends_with).bounding_box()
            assert last is not None, f"{ends_with} is not on the page"
            height = last["y"] + last["height"] + BELOW
            clip = {"x": 0, "y": 0, "width": WINDOW["width"], "height": height}
            window.screenshot(path=path, clip=clip, full_page=True)
        browser.close()
    print(path)


def _uri(image: Tensor) -> str:
    stream = io.BytesIO()
    to_image(image).save(stream, format="PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
