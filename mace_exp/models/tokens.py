"""Token ids of prompts: padding, and positions of a phrase, of the end, and of what two share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any, Protocol

import torch
from torch import Tensor


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    model_max_length: int
    pad_token_id: int | None
    eos_token_id: int

    def __call__(
        self, text: str | list[str], *, padding: bool, truncation: bool, verbose: bool
    ) -> Any: ...

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]: ...


def token_ids(tokenizer: Tokenizer, prompts: Sequence[str], context_length: int) -> Tensor:
    """Return ids [n, context_length], int64, padded with the tokenizer's padding token.

    Raises ValueError, with the prompt and its tokens, for a prompt that is too long: truncated
    words would silently be missing from every statistic.
    """
    rows = plain_ids(tokenizer, list(prompts)) if prompts else []
    return _padded(tokenizer, prompts, rows, context_length)


def _padded(
    tokenizer: Tokenizer, prompts: Sequence[str], rows: Sequence[list[int]], context_length: int
) -> Tensor:
    for prompt, row in zip(prompts, rows, strict=True):
        if len(row) > context_length:
            raise ValueError(
                f"prompt has {len(row)} tokens, start and end included; the model reads"
                f" {context_length}: {prompt!r}, tokens {_token_texts(tokenizer, row)}"
            )
    padding = tokenizer.pad_token_id
    padding = tokenizer.eos_token_id if padding is None else padding
    padded = [row + [padding] * (context_length - len(row)) for row in rows]
    return torch.tensor(padded, dtype=torch.int64).reshape(len(rows), context_length)


def phrase_positions(tokenizer: Tokenizer, prompt: str, phrase: str) -> list[int]:
    """Return the positions of the tokens of every occurrence of `phrase` in `prompt`, in order.

    Tokens are compared, not characters: "cat" is found in "Cat's" but not in "catalogue", and the
    possessive ending is not part of the phrase.

    Raises ValueError, with the prompt and its tokens, if the phrase does not occur.
    """
    row, named = plain_ids(tokenizer, [prompt, phrase])
    return _positions(tokenizer, prompt, phrase, row=row, sought=named[1:-1])


def ids_and_positions(
    tokenizer: Tokenizer, prompt: str, phrase: str, context_length: int
) -> tuple[Tensor, list[int]]:
    """Return `token_ids` of one prompt, [context_length], and `phrase_positions` in it.

    A call of a tokenizer takes as long for one text as for several: here it is one call.
    """
    row, named = plain_ids(tokenizer, [prompt, phrase])
    ids = _padded(tokenizer, [prompt], [row], context_length)[0]
    return ids, _positions(tokenizer, prompt, phrase, row=row, sought=named[1:-1])


def _positions(
    tokenizer: Tokenizer, prompt: str, phrase: str, *, row: list[int], sought: list[int]
) -> list[int]:
    found = list(occurrences(row, sought))
    if not found:
        raise ValueError(
            f"phrase {phrase!r} does not occur in the prompt {prompt!r}:"
            f" tokens {_token_texts(tokenizer, sought)} are not in"
            f" {_token_texts(tokenizer, row)}"
        )
    return [start + offset for start in found for offset in range(len(sought))]


def phrase_ids(tokenizer: Tokenizer, phrase: str) -> list[int]:
    """Return the ids of a phrase, without start and end tokens."""
    return list(plain_ids(tokenizer, phrase)[1:-1])


def end_positions(ids: Sequence[int], end_id: int) -> list[int]:
    """Return the first end-of-text position and all after it: padding, whatever its token id."""
    return list(range(_length(ids, end_id) - 1, len(ids)))


def paired_positions(
    old_ids: Sequence[int], new_ids: Sequence[int], end_id: int, *, all_words: bool = False
) -> tuple[list[int], list[int]]:
    """Return paired positions of two padded prompts, old and new (paper, section 4.1).

    Paired are the common prefix, the common suffix (end-of-text included), then
    L - max(length of old, length of new) padding positions. The tokens that differ, concept and
    anchor, are left out. `all_words` pairs every position with itself instead.

    Raises ValueError if the rows differ in length or have no end-of-text token.
    """
    if len(old_ids) != len(new_ids):
        raise ValueError(f"rows of {len(old_ids)} and {len(new_ids)} ids: pad both to one length")
    if all_words:
        return list(range(len(old_ids))), list(range(len(new_ids)))
    old, new = old_ids[: _length(old_ids, end_id)], new_ids[: _length(new_ids, end_id)]
    prefix = _common_prefix(old, new)
    suffix = _common_prefix(old[prefix:][::-1], new[prefix:][::-1])
    padding = len(old_ids) - max(len(old), len(new))
    tail = suffix + padding
    return (
        _head_and_tail(len(old) + padding, prefix, tail),
        _head_and_tail(len(new) + padding, prefix, tail),
    )


def _head_and_tail(length: int, head: int, tail: int) -> list[int]:
    """Return the first `head` and the last `tail` of `length` positions."""
    return [*range(head), *range(length - tail, length)]


def _common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def occurrences(row: Sequence[int], phrase: Sequence[int]) -> Iterator[int]:
    """Yield the start of each occurrence of a phrase's ids in a row: occurrences do not overlap. An
    empty phrase has none."""
    start = 0
    while phrase and start + len(phrase) <= len(row):
        if list(row[start : start + len(phrase)]) == list(phrase):
            yield start
            start += len(phrase)
        else:
            start += 1


def _length(ids: Sequence[int], end_id: int) -> int:
    """Return the number of tokens up to and including the first end-of-text."""
    try:
        return list(ids).index(end_id) + 1
    except ValueError:
        raise ValueError(f"no end-of-text token {end_id} in the ids {list(ids)}") from None


def plain_ids(tokenizer: Tokenizer, prompt: str | list[str]) -> Any:
    """Return ids with start and end tokens (a list for each of several prompts), neither truncated
    nor padded.

    `verbose` is off because callers raise for prompts that are too long.
    """
    return tokenizer(prompt, padding=False, truncation=False, verbose=False).input_ids


def _token_texts(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    return tokenizer.convert_ids_to_tokens(list(ids))
