"""docs/images/report.png: the top of a run's report.html, as a browser shows it.

python -m figures.report --run outputs/...
"""

import argparse
from pathlib import Path

from figures.page import save

LAST = "#heat_map"  # the card that the picture ends with


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True, type=Path)
    arguments = parser.parse_args()
    save(arguments.run / "report.html", "report.png", ends_with=LAST, scale=1.0)


if __name__ == "__main__":
    main()
