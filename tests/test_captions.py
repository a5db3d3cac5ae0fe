"""Captions in tables are read by their column, and never line by line with header and ids."""

import gzip
import json
from pathlib import Path

import pytest

from mace_exp.concepts.captions import NAME_COLUMNS, read_captions
from mace_exp.config.composing import composed_run
from mace_exp.utils.tables import read_table

CAPTIONS = ["A cat, asleep.", 'A "red" ship.', "A man\nwith two lines"]
PLAIN = ["A cat, asleep.", 'A "red" ship.', "A man with two lines"]


def cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def table(folder: Path, name: str, column: str = "caption") -> Path:
    """Write the captions with ids beside them."""
    file = folder / name
    if file.suffix == ".jsonl":
        lines = [json.dumps({"id": i, column: text}) for i, text in enumerate(CAPTIONS)]
    else:
        mark = {"csv": ",", "tsv": "\t", "semicolons": ";"}[file.stem]
        rows = [(str(i), cell(text), "512") for i, text in enumerate(CAPTIONS)]
        lines = [mark.join(row) for row in [("", column, "width"), *rows]]
    file.write_text("\n".join(lines) + "\n\n", encoding="utf-8-sig")
    return file


FILES = ["csv.csv", "semicolons.csv", "tsv.tsv", "tsv.csv", "lines.jsonl"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("column", ["caption", "Prompt", "TEXT"])
def test_the_usual_columns_are_found(tmp_path: Path, name: str, column: str) -> None:
    assert read_captions(table(tmp_path, name, column)) == PLAIN


@pytest.mark.parametrize("name", FILES)
def test_another_column_is_named(tmp_path: Path, name: str) -> None:
    file = table(tmp_path, name, "sentence")
    assert read_captions(file, "sentence") == PLAIN
    with pytest.raises(ValueError, match=r"'sentence'.*none of caption, prompt, text: name one"):
        read_captions(file)
    with pytest.raises(ValueError, match=r"has the columns .*, no 'words'"):
        read_captions(file, "words")


def test_the_first_usual_column_counts(tmp_path: Path) -> None:
    file = tmp_path / "coco_30k.csv"
    file.write_text("case_number,text,prompt,evaluation_seed\n0,x,a cat,7\n1,y,,8\n2,z,a dog,9\n")
    assert read_captions(file) == ["a cat", "a dog"], "a row without a caption holds none"
    names = tmp_path / "names.csv"
    names.write_text("name,caption\nAmy Adams,x\n")
    assert read_captions(names, known=NAME_COLUMNS) == ["Amy Adams"]


def test_captions_that_would_be_cut_at_a_comma_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("id,caption\n1,a cat\n2,a cat, asleep\n")
    with pytest.raises(ValueError, match="line 3 has 3 cells, .* 2 columns: .* quotation"):
        read_captions(file)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "", "is empty: its first line must name the columns"),
        ("a.csv", " \n,\n", "is empty: its first line must name the columns"),
        ("a.csv", "caption\n", "holds none"),
        ("a.jsonl", '{"caption": "a"}\nno\n', "line 2 is not JSON"),
        ("a.jsonl", '["a cat"]\n', "line 1 is no JSON object"),
        ("a.jsonl", '{"caption": null}\n', "holds none"),
    ],
)
def test_what_is_no_table_of_captions_is_named(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        read_captions(tmp_path / name)


def test_only_tables_have_columns(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a cat, asleep\n")
    assert read_captions(tmp_path / "a.txt") == ["a cat, asleep"]
    with pytest.raises(ValueError, match="has no columns: 'text' is one of a .csv"):
        read_captions(tmp_path / "a.txt", "text")
    with pytest.raises(ValueError, match=r"nowhere.csv can't be read"):
        read_table(tmp_path / "nowhere.csv")


def test_every_term_of_a_run_has_a_column(tmp_path: Path) -> None:
    file = table(tmp_path, "csv.csv", "sentence")
    terms = "{boats: {source: none, unit: 1, count: 0, captions: [], file: null, cache: null}}"
    config = composed_run(
        "preservation=captions",
        f"preservation.prior.file={file}",
        "preservation.prior.column=sentence",
        f"++preservation.terms={terms}",
        f"++preservation.terms.boats.file={file}",
        "++preservation.terms.boats.column=sentence",
    )
    assert [term.read_file() for term in config.preservation.by_name().values()] == [
        PLAIN,
        [],
        PLAIN,
    ]
    with pytest.raises(ValueError, match=r"prior.file: .*none of .*prior.column=\.\.\."):
        composed_run("preservation=captions", f"preservation.prior.file={file}")
    with pytest.raises(ValueError, match=r"prior.column = sentence is of no file: give .*file"):
        composed_run("preservation.prior.column=sentence")


@pytest.mark.parametrize("name", ["a.txt", "a.json", "a.parquet", "a.csv"])
def test_files_of_captions_are_read_before_a_model_is_loaded(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PAR1...")
    given = ("preservation=captions", f"preservation.prior.file={tmp_path / name}")
    with pytest.raises(ValueError, match="^preservation.prior.file: .*a Parquet file"):
        composed_run(*given)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("excel.csv", "sep=;\r\nid;caption\r\n1;a cat, asleep\r\n"),
        ("bars.csv", "id|caption\n1|a cat, asleep\n"),
        ("commas.tsv", 'id, caption\n1, "a cat, asleep"\n'),
        ("one.tsv", "caption\na cat, asleep\n"),
        ("a.ndjson", '{"caption": "a cat, asleep"}\n'),
        ("quoted.csv", '"id,x,y";caption\n1;a cat, asleep\n'),
        ("lines.csv", '\ufeff"caption","id"\r\n"a cat,\nasleep",1\r\n'),
    ],
)
def test_tables_of_spreadsheets_are_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert read_captions(tmp_path / name) == ["a cat, asleep"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", '{"caption": ["a cat", "a dog"]}', "line 1, 'caption' is a list"),
        ("b.jsonl", '{"text": "a"}\n{"text": {"en": "a"}}', "line 2, 'text' is an object"),
        ("c.csv", "caption,caption\na,b\n", "two columns are named 'caption'"),
        ("c.csv", "Caption,id, caption\na,1,b\n", "two columns are named 'caption'"),
        ("d.jsonl", '{"caption": true}', "line 1, 'caption' is true or false: one text"),
    ],
)
def test_cells_that_are_no_single_text_are_refused(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        read_captions(tmp_path / name)


def test_text_of_windows_is_read_and_a_table_under_its_name_is_told(tmp_path: Path) -> None:
    """Excel saves "Unicode text" as UTF-16 with tabs, under .txt."""
    file = tmp_path / "a.txt"
    file.write_bytes("a cat\r\n\u200b\r\na\u00a0dog\r\n".encode("utf-16"))
    assert read_captions(file) == ["a cat", "a dog"]
    file.write_bytes("ID\tCaption\r\n1\ta cat\r\n".encode("utf-16"))
    with pytest.raises(ValueError, match="a table with tabs: .*'id', 'caption'. Name .* a.tsv"):
        read_captions(file)
    assert read_captions(file.rename(tmp_path / "a.tsv")) == ["a cat"]


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.json", "a.jsonl"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04...", "a zip archive, as workbooks of Excel are: save it as CSV UTF-8"),
        (gzip.compress(b"caption\na cat\n", mtime=0), "compressed by gzip: unpack it"),
        (b"PAR1 a cat PAR1", "a Parquet file: write its texts as .csv"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, .*: run `git lfs"),
        (b"\n<!DOCTYPE html><html>", "a web page, not the file"),
        ("caption\na cat\n".encode("utf-16-le"), "UTF-16 or UTF-32 without a byte order mark"),
        ("caption\na cat\n".encode("utf-32"), "UTF-16 or UTF-32 without a byte order mark"),
        ("caption\n\u20ac 5 for a caf\u00e9\n".encode("cp1252"), "save it in UTF-8"),
    ],
)
def test_what_is_no_text_is_called_by_its_name(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_captions(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("captions.txt", "image,caption\n1.jpg,A child\n", "with ',': .* file captions.csv"),
        ("a.csv.txt", '"id";"text"\n1;a cat\n', "a table with ';': .* Name the file a.csv$"),
        ("a.psv", "id|prompt\n1|a cat\n", "Name the file a.csv$"),
        ("a.token", "1.jpg#0\ta cat\n1.jpg#1\ta dog\n", "with tabs, such as .* a.tsv$"),
        ("a.txt", '{"caption": "a cat"}\n', "is JSON: name the file a.jsonl$"),
        ("a.txt", '{"annotations": [{"caption": "a cat"}]}', "is JSON: name the file a.json$"),
        ("a.txt", '{\n  "annotations": []}', "is JSON: name the file a.json$"),
        ("a.json", '{"caption": "a"}\n{"caption": "b"}\n', "line is read from a.jsonl$"),
        ("a.json", '[{"caption": "a"}]', "Others are read from a .jsonl file"),
    ],
)
def test_a_table_under_another_name_is_told_its_name(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        read_captions(tmp_path / name)


@pytest.mark.parametrize(
    "text", ["a cat, text, and a sign\n", "{} of <v1>\n", "\ta cat\na\tdog\n", "<v1> in snow\n"]
)
def test_a_text_with_marks_of_tables_stays_a_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    assert read_captions(tmp_path / "a.txt") == [" ".join(x.split()) for x in text.splitlines()]
