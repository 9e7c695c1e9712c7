"""Cycles in a graph of names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping


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
                way = list(trail)
                yield tuple(way[way.index(target) :])
            elif target in edges and target not in done:
                trail[target] = None
                pending.append(iter(edges[target]))
