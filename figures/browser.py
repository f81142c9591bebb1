"""The browser that pages are looked at with.

    python -m figures.browser

Says which one it is, or in one line that there is none: ``make figures`` asks before it trains for minutes.
"""

import os
import shutil
import sys
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""Options under which it shows pages and asks nobody for anything."""


def find_browser() -> str:
    """Path of the browser: what ``NELBO_BROWSER`` names, or one of the usual names.

    Raises:
        FileNotFoundError: when there is none.
    """
    named = os.environ.get("NELBO_BROWSER", "")
    found = named if Path(named).is_file() else next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise FileNotFoundError(
            f"no browser found: none of {', '.join(BROWSERS)}; NELBO_BROWSER=PATH names another"
        )
    return found


def main() -> None:
    try:
        print(find_browser())
    except FileNotFoundError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
