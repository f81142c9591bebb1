"""The content of docstrings: shapes, units, errors, sources. ruff's D1 checks that they exist."""

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

# a shape is (), (B,), (B, C, ...), (N, *shape), or that of something else
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
    """Public classes and functions in these folders of the package; in all folders by default."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if (folders and path.relative_to(PACKAGE).parts[0] not in folders) or "tests" in path.parts[-2:]:
            continue  # the project of nelbo new has a test
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
    """Whether an argument or the result is a tensor."""
    annotations = [argument.annotation for argument in (*node.args.args, *node.args.kwonlyargs)]
    return any(
        re.search(r"\bTensor\b", ast.unparse(annotation))
        for annotation in (*annotations, node.returns)
        if annotation is not None and not re.match("Callable|Mapping|dict", ast.unparse(annotation))
    )


def raised(body: list[ast.stmt]) -> set[str]:
    """Names of the errors in statements ``raise Name(...)``."""
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


def words(text: str) -> set[str]:
    """Lower-case words without endings, without those that carry no content."""
    split = re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower())
    return {re.sub(r"(ing|ed|es|s|e)$", "", word) for word in split} - {
        "the",
        "a",
        "an",
        "of",
        "it",
        "thi",
        "",
    }


def test_docstrings_say_more_than_the_name():
    repeating = [
        f"{found.name}: {found.docstring}"
        for found in definitions()
        if words(found.docstring) <= words(found.node.name)
    ]
    assert not repeating, "\n".join(repeating)


ENTRY = re.compile(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)


def entries(docstring: str, section: str) -> dict[str, str]:
    """The entries of a section such as ``Args:``, by name."""
    found = re.search(rf"^{section}:\n((?: .*\n?|\n)+)", docstring, re.MULTILINE)
    return dict(ENTRY.findall(found.group(1))) if found else {}


def is_tensor(annotation: ast.expr | None) -> bool:
    return annotation is not None and ast.unparse(annotation) in ("Tensor", "Tensor | None")


def test_tensors_among_arguments_and_attributes_have_shapes():
    """In their entry in Args: or Attributes:, or before the entries of a class for all of them."""
    silent = []
    for found in definitions("diffusion", "evaluation", "models"):
        node = found.node
        if isinstance(node, ast.ClassDef):
            fields = [x for x in node.body if isinstance(x, ast.AnnAssign) and isinstance(x.target, ast.Name)]
            tensors = {x.target.id for x in fields if is_tensor(x.annotation)}  # pyright: ignore
            described = entries(found.docstring, "Attributes")
        else:
            arguments = (*node.args.args, *node.args.kwonlyargs)
            tensors = {argument.arg for argument in arguments if is_tensor(argument.annotation)}
            described = entries(found.docstring, "Args")
        if SHAPE.search(found.docstring.partition("Attributes:")[0]) and isinstance(node, ast.ClassDef):
            continue
        silent += [
            f"{found.name} {name}: {text}"
            for name, text in described.items()
            if name in tensors and not SHAPE.search(text)
        ]
    assert not silent, "\n".join(silent)


def test_raised_errors_say_when():
    silent = [
        f"{found.name}: {name}"
        for found in definitions()
        for name, text in entries(found.docstring, "Raises").items()
        if len(text.split()) < 2
    ]
    assert not silent, "\n".join(silent)


@functools.cache
def promised() -> dict[str, str]:
    """Docstrings of abstract methods, by name; they hold for the implementations."""
    said: dict[str, str] = {}
    for found in functions():
        if found.is_abstract:
            said[found.node.name] = said.get(found.node.name, "") + found.docstring
    return said


def inherited(found: Definition) -> str:
    """Docstring of the abstract method that this one implements."""
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
    """In the docstring of the function, or of the class for errors of its constructor."""
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
    """Functions that return terms of the bound, in their docstring or that of the class or module."""
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
    """In the module or one of its classes. Packages, base classes and the sampler state have no source."""
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
