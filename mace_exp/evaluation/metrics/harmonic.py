"""One number for an edit: the harmonic mean of efficacy and specificity."""

from __future__ import annotations

from collections.abc import Iterable


def harmonic_mean(values: Iterable[float]) -> float:
    """Return n / sum(1 / value); 0 where a value is 0: no part makes up for another.

    Raises:
        ValueError: no value, or one outside [0, 1].
    """
    numbers = list(values)
    if not numbers or not all(0 <= number <= 1 for number in numbers):
        raise ValueError(f"harmonic mean of {numbers}: give proportions")
    if min(numbers) == 0:
        return 0.0
    return len(numbers) / sum(1 / number for number in numbers)


def overall(erased: float, preserved: float) -> float:
    """Return H = 2 / (1 / (1 - erased) + 1 / preserved).

    The overall score of the paper's celebrity experiments (arXiv 2403.06135, section 4): efficacy
    is 1 - the accuracy on erased concepts, specificity the accuracy on kept ones of their kind.
    """
    return harmonic_mean([1 - erased, preserved])
