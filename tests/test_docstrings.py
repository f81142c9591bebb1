"""What docstrings must say beyond being there, which ruff's D1 checks: shapes, units, errors, sources."""

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/nelbo"
Function = ast.FunctionDef | ast.AsyncFunctionDef

# a shape is (), (B,), (B, C, ...), (N, *shape), or said to be that of something else
AXIS = r"[\w*.]+(?: [*+-] [\w*.]+)?"
SHAPE = re.compile(
    rf"\((?:\)|\.\.\.|{AXIS},(?: {AXIS},?)*\))|same shape|[Ss]hape of|shaped like|scalar|elementwise"
)
UNIT = re.compile(r"\bnats?\b|\bbits\b|bits/dim")
# an author and a year, the name of a paper that has them elsewhere, or what follows from the definition
SOURCE = re.compile(r"(?:19|20)\d\d|DDPM|VDM|EDM|DDIM")
SOURCED = (
    "schedules",
    "losses",
    "samplers",
    "variances",
    "spacings",
    "decoders",
    "parameterizations",
    "timesteps",
)


@dataclass(frozen=True)
class Definition:
    """A public function, method or class."""

    path: Path
    node: Function | ast.ClassDef
    owner: ast.ClassDef | None

    @property
    def name(self) -> str:
        owner = f"{self.owner.name}." if self.owner else ""
        return f"{self.path.relative_to(PACKAGE)}:{owner}{self.node.name}"

    @property
    def docstring(self) -> str:
        return ast.get_docstring(self.node) or ""

    @property
    def is_abstract(self) -> bool:
        return any("abstractmethod" in ast.unparse(decorator) for decorator in self.node.decorator_list)


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def definitions(*folders: str) -> Iterator[Definition]:
    """All that is public in these folders of the package, in all of it where none is named."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if folders and path.relative_to(PACKAGE).parts[0] not in folders:
            continue
        for node in parsed(path).body:
            if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
                yield Definition(path, node, None)
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                for member in node.body:
                    if isinstance(member, Function) and not member.name.startswith("_"):
                        yield Definition(path, member, node)


def functions(*folders: str) -> Iterator[Definition]:
    return (found for found in definitions(*folders) if isinstance(found.node, Function))


def tensors_of(node: Function) -> bool:
    """Whether a tensor goes in or comes out by itself."""
    annotations = [argument.annotation for argument in (*node.args.args, *node.args.kwonlyargs)]
    return any(
        re.search(r"\bTensor\b", ast.unparse(annotation))
        for annotation in (*annotations, node.returns)
        if annotation is not None and not re.match("Callable|Mapping|dict", ast.unparse(annotation))
    )


def raised(body: list[ast.stmt]) -> set[str]:
    """Names of the errors that are raised here, and not caught again, by ``raise Name(...)``."""
    names = set()
    for statement in body:
        for node in ast.walk(statement):
            if (
                isinstance(node, ast.Raise)
                and isinstance(node.exc, ast.Call)
                and isinstance(node.exc.func, ast.Name)
            ):
                names.add(node.exc.func.id)
    return names


def test_everything_public_has_a_docstring():
    missing = [found.name for found in definitions() if not found.docstring]
    missing += [str(path) for path in PACKAGE.rglob("*.py") if not ast.get_docstring(parsed(path))]
    assert not missing, "\n".join(missing)


@functools.cache
def promised() -> dict[str, str]:
    """What abstract methods say, by their names: it holds for those that implement them."""
    said: dict[str, str] = {}
    for found in functions():
        if found.is_abstract:
            said[found.node.name] = said.get(found.node.name, "") + found.docstring
    return said


def inherited(found: Definition) -> str:
    """What the method that this one implements says."""
    return promised().get(found.node.name, "") if found.owner and found.owner.bases else ""


def test_functions_of_tensors_name_shapes():
    """In the docstring of the function, or of the abstract method that it implements."""
    silent = [
        found.name
        for found in functions("diffusion", "evaluation")
        if tensors_of(found.node) and not SHAPE.search(found.docstring + inherited(found))
    ]
    assert not silent, "\n".join(silent)


def test_errors_for_users_are_documented():
    """In the function, or, for what a constructor refuses, in the class."""
    silent = []
    for found in definitions():
        node = found.node
        if isinstance(node, ast.ClassDef):
            constructors = [
                member for member in node.body if isinstance(member, Function) and member.name == "__init__"
            ]
            bodies = [constructor.body for constructor in constructors]
        else:
            bodies = [node.body]
        errors = {error for body in bodies for error in raised(body)} & {
            "ValueError",
            "OSError",
            "FileNotFoundError",
        }
        section = found.docstring.partition("Raises:")[2] + inherited(found).partition("Raises:")[2]
        silent += [f"{found.name} raises {error}" for error in sorted(errors) if error not in section]
    assert not silent, "\n".join(silent)


@pytest.mark.parametrize("folder", ["diffusion", "evaluation"])
def test_terms_of_the_bound_say_their_unit(folder):
    """What is named after a term, or holds terms, in its docstring or in that of its class or module."""
    named = re.compile(r"bound|prior|reconstruction|denoising|nats|bpd|cost|kl$|log_prob$|^terms?$|^total$")
    silent = []
    for found in functions(folder):
        returns = ast.unparse(found.node.returns) if found.node.returns else ""
        if named.search(found.node.name) and re.search(r"Tensor|float|BoundTerms", returns):
            owner = ast.get_docstring(found.owner) if found.owner else ""
            module = ast.get_docstring(parsed(found.path))
            if not any(UNIT.search(text or "") for text in (found.docstring, owner, module)):
                silent.append(found.name)
    assert not silent, "\n".join(silent)


def test_components_name_their_source():
    """The module, or one of its classes; packages, bases and what a sampler is told are ours."""
    silent = []
    paths = [path for group in SOURCED for path in (PACKAGE / "diffusion" / group).glob("*.py")]
    paths += (PACKAGE / "evaluation/estimators").glob("*.py")
    assert len(paths) > 30
    for path in paths:
        tree = parsed(path)
        documented = (tree, *(node for node in tree.body if isinstance(node, ast.ClassDef)))
        said = any(SOURCE.search(ast.get_docstring(node) or "") for node in documented)
        if path.stem not in ("__init__", "base", "state") and not said:
            silent.append(str(path.relative_to(PACKAGE)))
    assert not silent, "\n".join(silent)
