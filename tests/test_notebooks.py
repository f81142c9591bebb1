"""The notebooks: the two files of a pair agree, and what is committed was run from top to bottom.

That they run is for ``make notebooks`` to show.
"""

import json
from pathlib import Path

import jupytext
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
STEMS = sorted(path.stem for path in FOLDER.glob("0*.py"))
MOST_BYTES = 400_000


@pytest.fixture(params=STEMS)
def stem(request) -> str:
    return request.param


@pytest.fixture
def committed(stem) -> dict:
    return json.loads((FOLDER / f"{stem}.ipynb").read_text(encoding="utf-8"))


def code_of(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_every_notebook_has_both_files_and_a_line_in_the_readme():
    assert STEMS
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == STEMS
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [stem for stem in STEMS if f"({stem}.ipynb)" not in readme] == []


def test_both_files_have_the_same_cells(stem, committed):
    text = jupytext.read(FOLDER / f"{stem}.py")
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in committed["cells"]]
    assert cells == [(cell.cell_type, cell.source) for cell in text.cells]


def test_it_was_run_from_top_to_bottom(committed):
    counts = [cell["execution_count"] for cell in code_of(committed)]
    assert counts == list(range(1, len(counts) + 1))
    outputs = [output for cell in code_of(committed) for output in cell["outputs"]]
    kinds = {output["output_type"] for output in outputs}
    assert "error" not in kinds
    assert "display_data" in kinds  # the pictures
    assert "stderr" not in {output.get("name") for output in outputs}  # no warnings


def test_it_is_small_and_says_nothing_of_the_machine(stem, committed):
    assert (FOLDER / f"{stem}.ipynb").stat().st_size < MOST_BYTES
    printed = "".join(
        "".join(output.get("text", "")) for cell in code_of(committed) for output in cell["outputs"]
    )
    assert printed
    assert [word for word in ("/tmp", "/home", "/root", "/Users") if word in printed] == []
