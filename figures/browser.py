"""Find the browser that renders pages.

    python -m figures.browser

Prints its path, or an error if there is none. ``make figures`` runs this before the training.
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
"""Options for rendering without network access and prompts."""


def find_browser() -> str:
    """Path of the browser: ``NELBO_BROWSER``, or one of the usual names.

    Raises:
        FileNotFoundError: if there is none.
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
