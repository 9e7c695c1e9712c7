"""Cycles in a graph of names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

_SHOWN = 8


def way(cycle: tuple[str, ...]) -> str:
    """`a → b → a`; the middle of a long cycle is left out."""
    shown = cycle if len(cycle) <= _SHOWN else (*cycle[: _SHOWN - 1], "…")
    return " → ".join((*shown, cycle[0]))


def cycles(edges: Mapping[str, Iterable[str]]) -> Iterator[tuple[str, ...]]:
    """A cycle for every edge that closes one, as the names on the way; targets that are no key are passed over.

    Iterative, since a file may hold chains longer than Python's stack.
    """
    done: set[str] = set()
    for start in edges:
        if start in done:
            continue
        trail = {start: None}  # a dict, for its order and its quick lookup
        pending = [iter(edges[start])]
        while pending:
            target = next(pending[-1], None)
            if target is None:
                pending.pop()
                done.add(trail.popitem()[0])
            elif target in trail:
                names = list(trail)
                yield tuple(names[names.index(target) :])
            elif target in edges and target not in done:
                trail[target] = None
                pending.append(iter(edges[target]))
