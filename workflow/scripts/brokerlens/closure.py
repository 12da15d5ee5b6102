"""Which of our files a script's results depend on, found by reading its imports, and their digest.

Snakemake notices an edited script by its date and an edited module not at all. A digest of the script, of every module of ours that it
imports, and of the other files in those modules' packages (templates, tables) goes into the rule's `params` instead: an edit runs exactly the
jobs whose code it changes, and a new date (a checkout, a copy) runs none.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SKIPPED = frozenset({"__pycache__"})
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
"""Where a statement has others inside."""


@cache
def code_digest(script: Path) -> str:
    """Digest of the script and of everything of ours that it imports; same bytes, same digest, wherever they lie."""
    digest = hashlib.sha256()
    for path in sorted(closure(script)):
        digest.update(f"{path.relative_to(script.parent)}\0{_file_digest(path)}\n".encode())
    return digest.hexdigest()[:16]


def closure(script: Path) -> frozenset[Path]:
    """The script, the modules beside it that it imports, directly or not, and the files that lie in those modules' packages."""
    root = script.parent
    todo, found = [script], set[Path]()
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += _imports(path, root)
    return frozenset(found | {beside for path in found if path.name == "__init__.py" for beside in _data_files(path.parent)})


@cache
def _imports(path: Path, root: Path) -> tuple[Path, ...]:
    """Files under `root` that importing this module loads; `if TYPE_CHECKING:` is not followed."""
    package = path.parent.relative_to(root).parts
    names = _imported_names(ast.parse(path.read_bytes(), filename=str(path)).body, package)
    return tuple(dict.fromkeys(file for name in names for file in _files_of(name, root)))


def _imported_names(nodes: list[ast.stmt], package: tuple[str, ...]) -> Iterator[str]:
    todo: list[ast.AST] = list(nodes)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # One dot is the module's own package, each further one its parent.
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*start, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and _is_type_checking(node.test):
            todo += node.orelse
        else:
            for block in BLOCKS:  # of statements alone: expressions, most of a tree, import nothing
                todo += getattr(node, block, ())


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING")


@cache
def _files_of(name: str, root: Path) -> tuple[Path, ...]:
    """The files that importing a dotted name loads: the packages on the way, and the module itself if it is one."""
    head, _, tail = name.rpartition(".")
    above = _files_of(head, root) if head else ()
    if head and (not above or above[-1].name != "__init__.py" or len(above) < len(head.split("."))):
        return above
    folder = above[-1].parent if above else root
    if (folder / tail / "__init__.py").is_file():
        return (*above, folder / tail / "__init__.py")
    return (*above, folder / f"{tail}.py") if (folder / f"{tail}.py").is_file() else above


@cache
def _data_files(package: Path) -> tuple[Path, ...]:
    """What is not Python in a package and in those of its folders that are no packages themselves."""
    files: list[Path] = []
    for path in sorted(package.iterdir()):
        if path.name in SKIPPED or path.name.startswith("."):
            continue
        if path.is_dir() and not (path / "__init__.py").exists():
            files += [inner for inner in path.rglob("*") if inner.is_file() and not SKIPPED.intersection(inner.parts)]
        elif path.is_file() and path.suffix != ".py":
            files.append(path)
    return tuple(files)


@cache
def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
