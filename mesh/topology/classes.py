"""Finds an agent's class without importing anything: a check must not run an operator's code."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder
from pathlib import Path


class ClassUnreadable(Exception):
    """Raised when a module's source cannot be read; the text says why."""


def search_folders(folder: Path) -> tuple[Path, ...]:
    """Where modules are looked for before the Python path: beside the topology file, then beside its folder."""
    return folder, folder.resolve().parent


def find_module(module: str, folder: Path) -> Path | None:
    """File of a module, found from the folder of the topology file, then on the Python path; None if nowhere."""
    parts = module.split(".")
    if not all(parts):
        return None
    for base in search_folders(folder):
        place = base.joinpath(*parts)
        for candidate in (place.with_name(parts[-1] + ".py"), place / "__init__.py"):
            if candidate.is_file():
                return candidate
    return _on_python_path(parts)


def _on_python_path(parts: Sequence[str]) -> Path | None:
    search: list[str] | None = None
    origin: str | None = None
    for part in parts:
        # Only the last part of a name is looked up in a folder; the full one would import the parents.
        spec = PathFinder.find_spec(part, search)
        if spec is None:
            return None
        search = list(spec.submodule_search_locations or ())
        origin = spec.origin
    return None if origin is None else Path(origin)


def classes(module: Path) -> frozenset[str] | None:
    """Names at the top of a module that may be classes; None when they cannot be known. Raises ClassUnreadable."""
    if module.suffix != ".py":
        return None
    try:
        tree = ast.parse(module.read_bytes())
    except OSError as error:
        raise ClassUnreadable(error.strerror or str(error)) from error
    except SyntaxError as error:
        raise ClassUnreadable(f"{module.name}, line {error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise ClassUnreadable(f"{module.name}: {error}") from error
    names = frozenset(_bound(tree.body))
    return None if "*" in names else names


def _bound(statements: Sequence[ast.stmt]) -> Iterator[str]:
    for statement in statements:
        match statement:
            case ast.ClassDef():
                yield statement.name
            case ast.Import() | ast.ImportFrom():
                yield from ((alias.asname or alias.name).partition(".")[0] for alias in statement.names)
            case ast.Assign():
                yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.If() | ast.With():
                yield from _bound([*statement.body, *getattr(statement, "orelse", ())])
            case ast.Try():
                handlers = [inner for handler in statement.handlers for inner in handler.body]
                yield from _bound([*statement.body, *handlers, *statement.orelse, *statement.finalbody])
