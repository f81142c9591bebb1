"""The picture of the house in docs/architecture.md is drawn from the imports."""

from pathlib import Path

import grimp

PAGE = Path(__file__).parents[2] / "docs/architecture.md"
# that any room may use
HELPERS = {
    "_lazy",
    "_torchvision",
    "array_file",
    "atomic_file",
    "cond",
    "connections",
    "option_types",
    "progress",
    "randomness",
    "text",
}
HELPERS |= {"torch_file"}


def picture() -> str:
    """The rooms and who imports whom, as a Mermaid flow chart."""
    graph = grimp.build_graph("nelbo", cache_dir=None)
    pairs = set()
    for module in graph.modules - {"nelbo"}:
        for imported in graph.find_modules_directly_imported_by(module) - {"nelbo"}:
            importer, room = module.split(".")[1], imported.split(".")[1]
            if importer != room and not {importer, room} & HELPERS:
                pairs.add((importer, room))
    lines = [f"  {importer} --> {room}" for importer, room in sorted(pairs)]
    return "\n".join(["```mermaid", "flowchart TD", *lines, "```"])


def test_the_picture_shows_the_imports():
    assert picture() in PAGE.read_text(), f"put this into {PAGE.name}:\n{picture()}"
