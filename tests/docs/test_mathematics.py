"""What docs/mathematics.md calls by a name is called so in the code."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/mathematics.md"


def names_of_the_code() -> set[str]:
    """Functions and classes of src, and ``Class.member`` of their methods, properties and fields."""
    names = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef):
                names.add(node.name)
            if isinstance(node, ast.ClassDef):
                names.add(node.name)
                for member in node.body:
                    if isinstance(member, ast.FunctionDef):
                        names.add(f"{node.name}.{member.name}")
                        names |= {f"{node.name}.{attribute}" for attribute in set_on_self(member)}
                    if isinstance(member, ast.AnnAssign) and isinstance(member.target, ast.Name):
                        names.add(f"{node.name}.{member.target.id}")
    return names


def set_on_self(method: ast.FunctionDef) -> set[str]:
    """Attributes that a method assigns."""
    stored = (node for node in ast.walk(method) if isinstance(node, ast.Attribute))
    return {node.attr for node in stored if isinstance(node.ctx, ast.Store)}


def test_every_name_in_the_tables_is_in_the_code():
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("|") and "---" not in line]
    named = {name for row in rows for name in re.findall(r"`([\w.]+)`", row.rsplit("|", 2)[-2])}
    assert len(named) > 40, "the tables were not found"
    assert sorted(named - names_of_the_code()) == []
