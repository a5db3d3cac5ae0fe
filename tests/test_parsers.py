"""Whatever a parser is given, it reads it, or says in one error what is wrong with which file."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from mace_exp.concepts.captions import read_captions, read_templates
from mace_exp.concepts.concept import slugify
from mace_exp.convert import convert, read
from mace_exp.data.image_captions import captions_beside
from mace_exp.data.training_images import load_images
from mace_exp.evaluation.detections import COLUMNS as DETECTED
from mace_exp.evaluation.detections import read_detections
from mace_exp.evaluation.neighbours import read_neighbours
from mace_exp.evaluation.prompt_files import FIELDS, read_prompts
from mace_exp.evaluation.scores import ABOUT, COLUMNS, read_scores
from mace_exp.models.tokens import paired_positions, phrase_positions
from mace_exp.preservation.statistics import PreservationStatistics, read_statistics
from mace_exp.report.read_run import read_table
from mace_exp.utils.reading import read_json
from mace_exp.utils.tables import read_table as read_user_table
from mace_exp.utils.texts import fault_of, shown
from mace_exp.utils.yaml_files import read_plain
from tests.tiny import WORDS, tiny_tokenizer

few = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
"""The same few examples at every run."""
SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
words = some.lists(some.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
scalars = some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=9)
KEYS = (
    *("multi_concept", "mapping_concept", "rank", "learning_rate", "use_gsam_mask", "lamb"),
    *("train_preserve_scale", "class_data_dir", "preserve_prompt", "report_to", "other"),
)
nested = some.recursive(
    scalars,
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=5), inner),
    max_leaves=6,
)


@few
@given(some.text(max_size=60))
def test_a_slug_is_a_file_name_and_its_own_slug(name: str) -> None:
    try:
        slug = slugify(name)
    except ValueError:
        return
    assert SLUG.fullmatch(slug) and slugify(slug) == slug


@few
@given(before=words, phrase=words, after=words)
def test_the_tokens_at_the_positions_of_a_phrase_are_the_phrase(
    before: str, phrase: str, after: str
) -> None:
    tokenizer: Any = tiny_tokenizer(context_length=77)
    at = phrase_positions(tokenizer, f"{before} {phrase} {after}", phrase)
    row, alone = tokenizer(f"{before} {phrase} {after}").input_ids, tokenizer(phrase).input_ids
    found = [row[position] for position in at]
    count = len(alone) - 2  # without start and end
    assert found and found == alone[1:-1] * (len(found) // count)


ids = some.lists(some.integers(2, 9), max_size=8)


@few
@given(old=ids, new=ids, all_words=some.booleans())
def test_paired_positions_rise_and_pair_equal_tokens(
    old: list[int], new: list[int], all_words: bool
) -> None:
    rows = [[0, *each, *[1] * (11 - len(each))] for each in (old, new)]
    ours, theirs = paired_positions(*rows, end_id=1, all_words=all_words)
    assert len(ours) == len(theirs)
    for found in (ours, theirs):
        assert found == sorted(set(found)) and all(0 <= each < 12 for each in found)
    if not all_words:
        assert all(rows[0][i] == rows[1][j] for i, j in zip(ours, theirs, strict=True))


READERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "captions": (read_captions, "a.txt"),
    "COCO": (read_captions, "a.json"),
    "templates": (read_templates, "a.txt"),
    "scores": (read_scores, "scores.csv"),
    "neighbours": (read_neighbours, "neighbours.csv"),
    "boxes": (lambda file: read_detections(file, 2), "detections.csv"),
    "a table": (read_table, "a.csv"),
    "a user's table": (read_user_table, "a.csv"),
    "a table with tabs": (read_user_table, "a.tsv"),
    "a table of JSON": (read_user_table, "a.jsonl"),
    "prompts": (lambda file: read_prompts(file, {each: [each] for each in FIELDS}), "a.csv"),
    "captions of images": (lambda file: captions_beside(file.parent, IMAGES), "prompts.csv"),
    "metadata of images": (lambda file: captions_beside(file.parent, IMAGES), "metadata.csv"),
    "training images": (lambda file: load_images(file.parent), "prompts.csv"),
    "statistics": (read_statistics, "a.safetensors"),
    "YAML": (read_plain, "a.yaml"),
    "a published configuration": (read, "a.yaml"),
    "JSON": (read_json, "a.json"),
}
IMAGES = [Path("0.png"), Path("1.png")]
HEADS = [b"", (",".join((*ABOUT, *COLUMNS)) + "\n").encode(), b"index,file,prompt,seed\n"]
HEADS += [b'{"annotations": [', b"\xef\xbb\xbf", b"\x08\0\0\0\0\0\0\0{}", b"a: &a [*a, "]
HEADS += [b"erased,neighbour,kind,similarity,listed\n", b"prompt,seed,concept,part\n"]
HEADS += [",".join(DETECTED).encode() + b"\n", b"file,prompt\n0.png,a ship\n", b"sep=;\n"]


@few
@given(head=some.sampled_from(HEADS), rest=some.binary(max_size=40) | some.text().map(str.encode))
@pytest.mark.parametrize("name", READERS)
def test_any_bytes_are_read_or_refused_by_the_name_of_their_file(
    tmp_path: Path, name: str, head: bytes, rest: bytes
) -> None:
    reader, file = READERS[name]
    (tmp_path / file).write_bytes(head + rest)
    try:
        reader(tmp_path / file)
    except ValueError as error:
        assert str(tmp_path) in str(error)


@few
@given(place=some.integers(0, 10_000), bit=some.integers(0, 7), length=some.integers(0, 10_000))
def test_damaged_statistics_are_read_or_refused(
    tmp_path: Path, place: int, bit: int, length: int
) -> None:
    file = tmp_path / "a.safetensors"
    root = torch.arange(16.0, dtype=torch.float64).reshape(4, 4)
    PreservationStatistics(root @ root.T, 3, "f", "0").save(file)
    data = bytearray(file.read_bytes())
    data[place % len(data)] ^= 1 << bit
    file.write_bytes(bytes(data)[: max(1, length % (2 * len(data)))])
    try:
        found = read_statistics(file).total
    except ValueError as error:
        assert str(file) in str(error)
    else:
        assert found.isfinite().all() and torch.equal(found, found.mT)


@few
@given(
    some.dictionaries(some.sampled_from(KEYS), nested, max_size=6),
    some.sampled_from([[], [["cat", "object"]], [[["a man", "person"]], [["a dog", "object"]]]]),
)
def test_any_published_configuration_is_converted_or_refused(
    theirs: dict[str, object], concepts: list[object]
) -> None:
    given_here = {"multi_concept": concepts, "mapping_concept": ["a thing"], **theirs}
    try:
        text = convert(given_here).text("mine")
    except ValueError:
        return
    assert isinstance(yaml.safe_load(io.StringIO(text)), dict)
    assert "\x1b" not in text


@few
@given(nested)
def test_plain_yaml_comes_back_as_it_was(tmp_path: Path, value: object) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump(value, allow_unicode=True, sort_keys=False), encoding="utf-8")
    try:
        found = read_plain(file)
    except ValueError as error:
        assert str(file) in str(error)
    else:
        assert json.dumps(found, default=str) == json.dumps(value, default=str)


@few
@given(some.text(some.characters(codec=None), max_size=40))
def test_what_is_shown_holds_nothing_to_obey(text: str) -> None:
    said = shown(text)
    said.encode()
    assert shown(said) == said and fault_of(said[:60]) is None
