"""docs/images/report.png: screenshot of the top of the report.html of a run.

python -m figures.report --run outputs/...
"""

import argparse
from pathlib import Path

from figures.page import save

LAST = "#chain"  # the last card of the figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True, type=Path)
    arguments = parser.parse_args()
    save(arguments.run / "report.html", "report.png", ends_with=LAST, scale=1.0)


if __name__ == "__main__":
    main()
