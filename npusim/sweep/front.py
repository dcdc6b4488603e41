"""Pareto fronts and what they are worth; every objective is to be made small."""

from __future__ import annotations

from collections.abc import Sequence

Values = tuple[float, ...]


def front(points: Sequence[Values]) -> list[int]:
    """Indices of points that no other beats: as good in all objectives and better in one. Of equal ones, the first."""
    order = sorted(range(len(points)), key=lambda i: (points[i], i))
    kept: list[int] = []
    for i in order:
        # Sorted by the first objective: only points already kept can beat this one.
        if not any(_covers(points[j], points[i]) for j in kept):
            kept.append(i)
    return sorted(kept)


def _covers(a: Values, b: Values) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True))


def hypervolume(points: Sequence[Values], reference: Values) -> float:
    """Volume between the points and `reference` (worse than all that counts), by slicing along the last objective."""
    inside = [p for p in points if all(x < r for x, r in zip(p, reference, strict=True))]
    if not inside:
        return 0.0
    if len(reference) == 1:
        return reference[0] - min(p[0] for p in inside)
    chosen = sorted((inside[i] for i in front(inside)), key=lambda p: p[-1])
    total = 0.0
    for i, point in enumerate(chosen):
        upper = chosen[i + 1][-1] if i + 1 < len(chosen) else reference[-1]
        if upper > point[-1]:
            total += (upper - point[-1]) * hypervolume([p[:-1] for p in chosen[: i + 1]], reference[:-1])
    return total
