"""Arguments as people type them: taken as meant, or refused with the argument ready to copy."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from mace_exp.cli.arguments import expand
from mace_exp.concepts.concept import Kind
from mace_exp.config.composing import composed_run
from mace_exp.preservation.captions import CaptionSource
from mace_exp.preservation.schema import TermConfig

Refusal = Callable[..., str]


def value_of(argument: str) -> object:
    """What Hydra makes of the last of the expanded arguments."""
    parsed = OverridesParser.create().parse_override(expand([argument])[-1])
    found = parsed.value()
    return [str(each) for each in found] if isinstance(found, list) else str(found)


@pytest.mark.parametrize(
    "name",
    [
        *("Timothée Chalamet", "P!nk", "<v1>", "O'Brien", "*NSYNC", "Ke$ha", "T. S. Eliot"),
        *("&Co", "!Ada", "#Ada", "Zoë #1", "> x", "*NSYNC é", "range(1)", "glob(*)", "Zoë: x"),
        *("A$AP (1)", "Emoji 😀", "-dash", "a=b", "D’Angelo", "100%"),
        *("Björk", "AC/DC", "Zoë & Max", "李小龙 Bruce Lee", "a(b)", "will.i.am", "50 Cent", "~x~"),
    ],
)
def test_names_are_taken_as_typed(name: str) -> None:
    assert value_of(f"concepts=[{name},Amy Adams]") == [name, "Amy Adams"]
    assert value_of(f"kept.people=[{name}]") == [name]


@pytest.mark.parametrize("name", ["+44", "1e5", "1.", "-inf", "NaN", "311"])
def test_names_of_digits_are_no_numbers(name: str) -> None:
    assert value_of(f"concepts=[{name}, Amy Adams]") == [name, "Amy Adams"]
    assert value_of(f"concepts=['A, {name}, B']") == [f"A, {name}, B"]


@pytest.mark.parametrize(
    "value",
    [
        *("/ckpt/epoch=3.safetensors", "/data/x (v1)", "/data/ü", "it's a cat", "/a/b#c", "a;b&c"),
        *("C:\\models\\sd (1)", "\\\\server\\sd"),
    ],
)
def test_paths_and_texts_are_taken_as_typed(value: str) -> None:
    assert value_of(f"model.source={value}") == value


def test_a_tilde_is_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert value_of("model.source=~/sd") == f"{tmp_path}/sd"
    assert value_of("model.source=~root/sd") == f"{Path('~root').expanduser()}/sd"
    assert value_of("model.source=~no-such-user/sd") == "~no-such-user/sd"
    with pytest.raises(ValueError, match=f"{tmp_path}/run is no run folder"):
        expand(["resume=~/run"])
    assert value_of("model.source=~/epoch=3 (a)") == f"{tmp_path}/epoch=3 (a)"


NAMES = [
    *("Beyoncé", "Sammy Davis, Jr.", "O'Brien", "Amy Adams", 'The "Rock"', "a: b", "50% off"),
    *("1984", "007", "1e5", "true", "a%20b", "a%20é"),
]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_keys_of_mappings(name: str) -> None:
    key = "'" + name.replace("'", "''") + "'"
    arguments = [
        f"concepts.kinds={{{key}: object}}",
        f"anchors.per_concept={{{key}: a small house}}",
        f"overrides={{{key}: {{lora.learning_rate: 1e-5, lora: {{targets: [to_k]}}}}}}",
    ]
    quoted = name.replace("'", "\\'")
    config = composed_run("concepts=custom", f"concepts.names=['{quoted}']", *expand(arguments))
    [concept] = config.concept_list()
    assert (concept.name, concept.kind.name, concept.anchor) == (name, "object", "a small house")
    lora = config.concept_lora(name)
    assert (lora.learning_rate, lora.targets) == (1e-5, ["to_k"])


@pytest.mark.parametrize("name", ["1984", "007", "1.5", "true", "Null", "50 Cent", "a%20b"])
def test_keys_that_hydra_would_read_as_numbers_are_names(name: str) -> None:
    """Also without quotation marks, and in the other mappings with names."""
    named = [f"concepts.names=['{name}']", f"generality.synonyms={{{name}: [x]}}"]
    given = [f"concepts.kinds={{{name}: object}}", f"overrides={{{name}: {{lora.rank: 3}}}}"]
    config = composed_run("concepts=custom", "generality=words", *expand([*named, *given]))
    assert [(each.name, each.kind.name) for each in config.concept_list()] == [(name, "object")]
    assert config.concept_lora(name).rank == 3
    assert config.generality.synonyms == {name: ["x"]}  # type: ignore[attr-defined]


def test_a_name_of_percent_escapes_is_one_only_where_it_is_erased() -> None:
    config = composed_run(*expand(["concepts=[a b]", "concepts.kinds={a%20b: object}"]))
    assert config.concepts.kinds == {"a b": Kind.object}


@pytest.mark.parametrize("key", ["kept.people", "concepts.names"])
def test_lists_of_names_are_texts(key: str) -> None:
    assert value_of(f"{key}=[007,1e5,true, Amy Adams]") == ["007", "1e5", "true", "Amy Adams"]


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("concepts=[Ada,null]", r"concepts.names\[1\] is null: a value is needed here"),
        ("anchors.per_concept={Zoë: null}", "anchors.per_concept.Zoë is null"),
        ("concepts.kinds={Zoë: objct}", "concepts.kinds.Zoë: 'objct' is not allowed"),
        ("anchors.per_concept={Amy Adams: {a: b}}", "concept: .* is not a name: give one text"),
        ("concepts.kinds={Zoë: object, Zoë: style}", "kinds holds 'Zoë' twice: give it once"),
        ("concepts.kinds={!Ada: object}", "'!' can't stand there without quotation marks"),
        ("concepts.kinds={Zoë=object}", "Write mappings in braces, {name: value}"),
        ("concepts=[ ,]", "concepts.names is empty"),
        ("cache_dir=/a,b", "values of a sweep: quote .* \"cache_dir='/a,b'\", or add --mult"),
        ("concepts.names=A,B", 'put a list into brackets, "concepts.names=.A,B.", or add'),
        ("concepts.kinds={Amy Adams: [object]}", "gives 'Amy Adams' the list .*: one value"),
        ("preservation.terms.boats=5", "boats = 5: it takes keys with values, as in .*captions="),
        (
            "preservation.weights.boats=5",
            "no term 'boats'; .* begins with its captions: .*boats.ca",
        ),
        ("cfr.weights.boats=5", "no term 'boats'; .* begins with its captions: .*terms.boats.capt"),
        ("preservation.terms.boats.caption=[a]", "Did you mean preservation.terms.boats.captions?"),
    ],
)
def test_values_that_are_none_are_told_by_their_key(argument: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        composed_run(*expand([argument]))


@pytest.mark.parametrize(
    "given",
    [
        ["preservation.terms.boats.captions=['a boat, at sea']", "preservation.weights.boats=3"],
        ["+preservation.terms.boats.captions=['a boat, at sea']", "cfr.weights.boats=3"],
        ["preservation.terms.boats={captions: ['a boat, at sea']}", "fusion.weights={boats: 3}"],
        ["preservation.terms={boats: {captions: ['a boat, at sea']}}"],
    ],
)
def test_a_new_term_is_given_on_the_command_line(given: list[str]) -> None:
    [term] = composed_run(*expand(given)).preservation.terms.values()
    assert term == TermConfig(
        source=CaptionSource.none,
        unit=1,
        count=0,
        captions=["a boat, at sea"],
        file=None,
        column=None,
        cache=None,
    )


def test_a_sweep_over_options_takes_keys_of_theirs() -> None:
    """Hydra looks up other keys in the option without the sweep, here attack=none."""
    swept = ["-m", "attack=inversion,relearning", "attack.images=2", "attack.steps=[0,1]", "seed=3"]
    expected = ["attack.images=choice(2)", "attack.steps=choice([0,1])", "seed=3"]
    assert expand(swept)[2:] == expected and expand(expand(swept)) == expand(swept)
    assert expand(["-m", "seed=1,2", "attack=tokens", "attack.images=2"])[-1] == "attack.images=2"
    assert expand(["sweep=mine", "masks.path=x"])[-1] == "masks.path=choice(x)"
    assert expand(["attack=tokens", "attack.images=2"])[-1] == "attack.images=2"


def test_choices_of_a_sweep_stay_choices() -> None:
    assert expand(["-m", "concepts=[Zoë Kravitz],[Amy Adams]"])[-1] == (
        "concepts.names=['Zoë Kravitz'],[Amy Adams]"
    )
    rest = ["lora.rank=1,2", "overrides.ship.lora.rank=1,4", "~sweep", "a=range(1,4)"]
    assert expand(rest)[:1] + expand(rest)[2:] == [rest[0], *rest[2:]]


@pytest.mark.parametrize(
    ("argument", "odd", "ready"),
    [
        ("prior_images.prompt=José, smiling", "'é'", "prior_images.prompt='José, smiling'"),
        ("concepts=[Adam Driver", "not key=value", "concepts=['Adam Driver']"),
        ('concepts=[The "Rock" Johnson, #1]', "'\"'", "concepts=['The \"Rock\" Johnson','#1']"),
        ('concepts=["Weird Al" Yankovic]', "'\"'", "concepts=['\"Weird Al\" Yankovic']"),
        ("overrides.Amy Adams.lora.rank=4", "braces", "overrides={Amy Adams: {lora.rank: 4}}"),
        ("concepts.kinds.Zoë=object", "braces", "concepts.kinds={Zoë: object}"),
        ("concepts.kinds.will.i.am=object", "braces", "concepts.kinds={will.i.am: object}"),
    ],
)
def test_what_cannot_be_meant_comes_back_ready_to_copy(argument: str, odd: str, ready: str) -> None:
    with pytest.raises(ValueError) as error:
        expand([argument])
    said = str(error.value)
    assert said.startswith(argument) and odd in said
    copied = said[len(argument) :]
    start = min(i for i in (copied.find('"' + ready[:9]), copied.find("'" + ready[:9])) if i >= 0)
    assert shlex.split(copied[start:])[0] == ready
    assert expand([ready])


def test_a_group_needs_no_plus_and_a_file_of_settings_no_name(refusal: Refusal) -> None:
    assert refusal("+experiment=own") == (
        "mace_exp: +experiment=own: experiment is a group: give experiment=own, without +"
    )
    assert refusal("+lora.rank=4") == (
        "mace_exp: +lora.rank: lora.rank is a key already: give lora.rank=..., without +"
    )
    said = refusal("--config-name=mine/own.yaml")
    assert "put the file into DIR/experiment/, and give --config-dir DIR experiment=own" in said
