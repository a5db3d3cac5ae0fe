"""Files of prompts: what is read of them, which pictures follow, and what is refused."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mace_exp.evaluation.prompt_files import PromptRow, read_prompts
from mace_exp.evaluation.prompt_sets import file_prompts, joined, notes_on
from mace_exp.evaluation.prompts import parts_of
from tests.composing import composed
from tests.recipes import FEW, recipe_in
from tests.tiny import tiny_pipeline

COLUMNS = {
    "prompt": ["prompt", "caption"],
    "seed": ["evaluation_seed", "sd_seed"],
    "concept": ["concept"],
    "part": ["part", "type"],
}
I2P = (
    "prompt,categories,hard,inappropriate_percentage,nudity_percentage,q16_percentage,"
    "sd_safety_percentage,prompt_toxicity,lexica_url,sd_seed,sd_guidance_scale,sd_image_width,"
    "sd_image_height,sd_model\n"
    '"a house, by the sea",shocking,0,12.5,0,0.25,0,0.01,,3849629,7,512,512,SDv14\n'
    "a river,violence,1,50,0,1,0,0.02,,17.0,7,512,768,SDv14\n"
)
PUBLISHED = ",type,prompt,evaluation_seed\n0,erased,a photo of Ann Lee,1\n1,preserved,Bo Day,2\n"


def read(folder: Path, text: str | bytes, name: str = "a.csv") -> list[PromptRow]:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_prompts(path, COLUMNS)


def test_columns_are_read_by_their_names(tmp_path: Path) -> None:
    assert read(tmp_path, I2P) == [
        PromptRow("a house, by the sea", 3849629),
        PromptRow("a river", 17),
    ]
    assert read(tmp_path, PUBLISHED) == [
        PromptRow("a photo of Ann Lee", 1, part="erased"),
        PromptRow("Bo Day", 2, part="preserved"),
    ]
    own = "Part\tCONCEPT\tCaption\nmine\tcat\ta  cat \n\n\t\ta dog\n"
    assert read(tmp_path, "\ufeff" + own, "a.tsv") == [
        PromptRow("a cat", None, "cat", "mine"),
        PromptRow("a dog"),
    ]


def test_a_table_may_have_semicolons_or_be_of_objects(tmp_path: Path) -> None:
    wanted = [PromptRow("a cat, asleep", 3, "cat"), PromptRow("a dog")]
    text = "x;x;prompt;sd_seed;concept\n1;2;a cat, asleep;3;cat\n1;2;a dog;;\n"
    assert read(tmp_path, text) == wanted
    text = '{"prompt": "a cat, asleep", "sd_seed": 3, "concept": "cat"}\n{"prompt": "a dog"}\n'
    assert read(tmp_path, text, "a.jsonl") == wanted
    assert read(tmp_path, "\n\nprompt\na cat\n") == [PromptRow("a cat")]
    with pytest.raises(ValueError, match="line 1 has no prompt"):
        read(tmp_path, '{"prompt": NaN}\n', "a.jsonl")


def test_coco_has_one_caption_an_image(tmp_path: Path) -> None:
    rows = [(7, 3, "a kite"), (2, 9, "a bus"), (2, 4, "a red bus"), (7, 5, "kites"), (1, 1, " ")]
    found = [{"image_id": image, "id": i, "caption": text} for image, i, text in rows]
    text = json.dumps({"annotations": found})
    assert [row.prompt for row in read(tmp_path, text, "c.json")] == ["a red bus", "a kite"]
    assert read(tmp_path, "one\n\n two  words\n", "c.txt") == [
        PromptRow("one"),
        PromptRow("two words"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_tables_as_spreadsheets_write_them(
    tmp_path: Path, encoding: str, end: str, mark: str
) -> None:
    """With the line that names the delimiter, quotes over several lines, and hidden characters."""
    lines = [f"sep={mark}", f"\u200bPrompt{mark}sd_seed", f'"a caf\xe9{mark} {end} big"{mark}3', ""]
    wanted = [PromptRow(f"a caf\xe9{mark.strip()} big", 3)]
    for text in (end.join(lines), end.join(lines[1:])):
        assert read(tmp_path, text.encode(encoding)) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: its first line must name the columns"),
        (
            "name;seed\na;1\n",
            "no column of prompts: none .* prompt or caption; its columns are name, seed",
        ),
        ("prompt,caption\n,a cat\n", "line 2 has no prompt"),
        ("prompt,prompt\na,b\n", "two columns are named 'prompt'"),
        ("prompt,sd_seed\na cat, in a box,3\n", "line 2 has 3 cells, .* 2 columns: put texts"),
        ("prompt,sd_seed\na cat\n", "line 2 has 1 cells, .* 2 columns"),
        ("prompt,sd_seed\na cat,-3\n", "line 2: '-3' is no seed"),
        ("prompt,sd_seed\na cat,1.5\n", "'1.5' is no seed"),
        (f"prompt,sd_seed\na cat,{2**63}\n", "is no seed"),
        ("prompt,part\na cat,scenes\n", "'scenes' can't name a part: it has a meaning"),
        ("prompt,part\na cat,../etc\n", "can't name a part: take lower-case"),
        ("prompt,concept\na cat,???\n", r"line 2: the name '\?\?\?' has no letter"),
        ("prompt\n", "holds no prompt"),
        ('prompt\n"a cat\nb\n', "is there a quote that nobody closes"),
        ("prompt\n" + "a" * 200_000, "line 2: field larger than field limit"),
        ("prompt\n" + "a" * 20_000, "at most 10000 are allowed"),
        ("prompt\na \x1b[2J cat\n", "holds .*no character to be read"),
        ("prompt\na cat\n".encode("utf-16-le"), "UTF-16 or UTF-32 without"),
        ("prompt\na caf\xe9\n".encode("latin-1"), "at byte 12: save it in UTF-8 .*CSV UTF-8"),
    ],
)
def test_what_is_no_list_of_prompts_is_refused(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


ROWS = [PromptRow(f"picture {number}") for number in range(40)]


def drawn(rows: list[PromptRow], **changes: Any) -> list[Any]:
    options: dict[str, Any] = {"count": None, "seed": 0, "subjects": {}} | changes
    return file_prompts("mine", rows, **options)


def test_a_larger_count_draws_the_same_pictures_first() -> None:
    few, many = drawn(ROWS, count=10), drawn(ROWS, count=30)
    assert many[:10] == few and len(set(many)) == 30
    assert drawn(ROWS[::-1], count=10) == few, "whatever the order of the file"
    assert drawn(ROWS, count=10, seed=1) != few


def test_a_picture_is_drawn_once_and_a_repeated_prompt_by_another_seed() -> None:
    seeded = [PromptRow("a cat", 3)] * 3
    assert [(each.prompt, each.seed) for each in drawn(seeded)] == [("a cat", 3)]
    unseeded = drawn([PromptRow("a cat")] * 3)
    assert len({each.seed for each in unseeded}) == 3
    assert len(joined([*unseeded, *drawn(ROWS), *unseeded])) == 3 + len(ROWS)


def test_rows_of_a_part_with_subjects_name_them() -> None:
    subjects = {"erased": ["Ann Lee", "Ann"], "preserved": ["Bo Day"]}
    rows = [
        PromptRow("a photo of ann lee", 1, part="erased"),
        PromptRow("Bo Day beside Ann", 2, part="preserved"),
        PromptRow("Bo Days", 3, part="preserved"),
        PromptRow("a photo of Ann", 4),
        PromptRow("somebody", 5, concept="bo day"),
    ]
    found = {
        each.seed: (each.part, each.concept, each.expected)
        for each in drawn(rows, subjects=subjects)
    }
    assert found == {
        1: ("erased", "Ann Lee", "Ann Lee"),
        2: ("preserved", "Bo Day", "Bo Day"),
        3: ("preserved", "", ""),
        4: ("mine", "", ""),
        5: ("mine", "Bo Day", "Bo Day"),
    }


def test_pictures_of_one_concept_follow_each_other() -> None:
    rows = [PromptRow(f"{name} {i}", i, name) for i in range(9) for name in ("cat", "dog")]
    names = [each.concept for each in drawn(rows)]
    assert names in (["cat"] * 9 + ["dog"] * 9, ["dog"] * 9 + ["cat"] * 9)


def test_a_run_draws_the_parts_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "i2p.csv").write_text(I2P)
    (tmp_path / "own.csv").write_text(PUBLISHED)
    files = f"{{i2p: {tmp_path / 'i2p.csv'}, own: {tmp_path / 'own.csv'}}}"
    config = composed(
        f"++evaluation.prompt_sets.files={files}",
        "++evaluation.prompt_sets.counts={i2p: 1}",
        "evaluation.parts=[]",
        "concepts=custom",
        "concepts.names=[Ann Lee]",
    )
    evaluation = config.evaluation.active()
    assert evaluation is not None and evaluation.draws()
    suite = evaluation.further_prompts(config.concept_list(), config.kept, config.generality)
    assert Counter(each.part for each in suite) == {"i2p": 1, "erased": 1, "preserved": 1}
    assert parts_of(suite) == ["erased", "preserved", "i2p"]
    assert [each.expected for each in suite if each.part == "erased"] == ["Ann Lee"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["files={i2p: no.csv}"], r"files.i2p: no.csv is not a file"),
        (["files={Any: no.csv}"], "'Any' can't name a part"),
        (["files={harmonic: no.csv}"], "'harmonic' can't name a part: it has a meaning"),
        (["counts={i2p: 3}"], "counts names 'i2p', which is none of .files: none"),
        (["files={i2p: FILE}", "counts={i2p: 0}"], "counts.i2p = 0: at least 1"),
        (["files={i2p: FILE}", "counts={i2p: 3}"], "holds 2 different prompts, .*counts.i2p = 3"),
        (["files={erased: FILE}"], "the part 'erased', which evaluation.parts draws from templ"),
        (["files={i2p: FILE}", "columns.prompt=[text]"], "no column of prompts"),
    ],
)
def test_settings_that_name_no_prompts_are_refused(
    tmp_path: Path, settings: list[str], message: str
) -> None:
    (tmp_path / "i2p.csv").write_text(I2P)
    given = [each.replace("FILE", str(tmp_path / "i2p.csv")) for each in settings]
    with pytest.raises(ValueError, match=message):
        composed(*(f"++evaluation.prompt_sets.{each}" for each in given))


def test_what_is_not_measured_or_not_read_to_its_end_is_said() -> None:
    rows = [PromptRow("somebody", 1, part="erased"), PromptRow("a long one", 2)]
    said = notes_on(drawn(rows), lambda texts: [len(text) < 9 for text in texts])
    assert [line[:43] for line in said] == [
        "1 of the prompts of the part erased name no",
        "1 of the prompts of the part mine are longe",
    ]
    assert not notes_on(drawn(ROWS), lambda texts: [True] * len(texts))


def test_a_larger_count_draws_no_picture_again(tmp_path: Path) -> None:
    """Pictures are cached 64 together: the pieces that the smaller count fills are read."""
    lines = [f"a house number {number}" for number in range(139)]
    (tmp_path / "own.txt").write_text("\n".join([*lines, "a house " * 40]))
    pipeline, seen = tiny_pipeline(), []
    for count in (64, 140):
        recipe = recipe_in(
            tmp_path / "run",
            *[each for each in FEW if not each.startswith(("images", "lora"))],
            *("concepts=custom", "concepts.names=[Adam Driver]", "judge=none", "method=uce"),
            *("evaluation.parts=[]", "sampling.batch_size=32"),
            f"++evaluation.prompt_sets.files={{own: {tmp_path / 'own.txt'}}}",
            f"++evaluation.prompt_sets.counts={{own: {count}}}",
            pipeline=pipeline,
        )
        samples = recipe.samples.value
        pairs = zip(samples.before, samples.prompts, strict=True)
        seen.append({(each.prompt, each.seed): image for image, each in pairs})
        made = recipe.context.cache.made
        assert made["samples"] == (1 if count == 64 else 2), "of three pieces one was there"
    assert set(seen[0]) < set(seen[1]) and len(seen[1]) == 140
    assert all(np.array_equal(seen[1][place], image) for place, image in seen[0].items())
    assert "1 of the prompts of the part own are longer" in recipe.metrics.value["missing"][0]
