"""Names as people spell them, and articles as they sound."""

import unicodedata

import pytest

from mace_exp.concepts.articles import filled, with_article
from mace_exp.concepts.concept import Concept, Kind, build_concepts
from mace_exp.concepts.prompts import (
    anchor_prompt,
    domain_captions,
    mentions,
    spelled_prompt,
    training_prompts,
)
from mace_exp.concepts.spelling import name_key, nearest_name, other_spelling, read_name
from mace_exp.config.composing import composed_run
from mace_exp.evaluation.bystanders import unnamed
from mace_exp.preservation.captions import CaptionSource, names_of
from mace_exp.utils.texts import plain_text

ACCENTED = "Timothée Chalamet"
DECOMPOSED = unicodedata.normalize("NFD", ACCENTED)
ANCHORS = dict.fromkeys(Kind, "a person")


def concept(name: str, anchor: str = "a person") -> Concept:
    return Concept(name, Kind.person, anchor)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ACCENTED, DECOMPOSED),
        ("Aaron Paul", "aaron-paul"),
        ("Aaron Paul", "AARON_PAUL"),
        ("Aaron Paul", " Aaron  Paul"),
        ("Lupita Nyong'o", "lupita nyong’o"),
        ("Jean-Luc Godard", "Jean Luc Godard"),
    ],
)
def test_spellings_of_one_name_have_one_key(one: str, other: str) -> None:
    assert name_key(one) == name_key(other)
    assert mentions(f"a photo of {other} at night", concept(one)) == 1
    assert domain_captions([one, "Amy Adams"], [], 1, avoid=[other]) == ["a photo of Amy Adams"]
    assert unnamed([one], [other], []) == unnamed([one], [], [f"a photo of {other}."]) == []


UNSEEN = ("\u200b", "\ufeff", "\u00ad", "\u200e", "\u200f", "\u2060", "\u200d", "\U000e0041")
SPACES = ("\u00a0", "\u2009", "\u202f", "\u3000", "\u3164", "  ", " \u200b ")


@pytest.mark.parametrize(
    "given",
    [
        *(f"{mark}A{mark}dam Driver{mark}" for mark in UNSEEN),
        *(f"Adam{space}Driver" for space in SPACES),
        *("\uff21dam Driver", "\U0001d400dam Driver"),
    ],
)
def test_a_name_is_what_its_reader_sees(given: str) -> None:
    """As a concept, a key, a kept name and a folder, and in a prompt that names it."""
    config = composed_run(
        "concepts=custom",
        values={
            "concepts.names": [given],
            "concepts.kinds": {given: "object"},
            "kept.people": ["Amy Adams", given],
            "anchors.per_concept": {"Adam Driver": f"an{given[4:6]}actor"},
        },
    )
    [made] = config.concept_list()
    assert (made.name, made.kind) == ("Adam Driver", Kind.object)
    assert config.kept.people == ["Amy Adams", "Adam Driver"]
    assert name_key(given) == name_key("Adam Driver")


def test_joiners_stay_where_they_shape_letters() -> None:
    family, persian = "\U0001f468\u200d\U0001f469", "\u0645\u06cc\u200c\u062e"
    assert plain_text(f"{family}\u200b {persian}") == f"{family} {persian}"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("\u0410dam Driver", r"'\\u0410' \(CYRILLIC CAPITAL LETTER A\).*: write 'Adam Driver'"),
        ("Br\u03bfoke", "GREEK SMALL LETTER OMICRON.*: write 'Brooke'"),
        ("\u200b", r"'\\u200b' is empty"),
        ("Adam\u202eDriver", "RIGHT-TO-LEFT OVERRIDE"),
    ],
)
@pytest.mark.parametrize("key", ["concepts.names", "kept.people", "evaluation.unlisted"])
def test_a_name_that_reads_as_another_is_refused(key: str, name: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"{key}: .*{said}"):
        composed_run("concepts=custom", values={"concepts.names": ["Ada"]} | {key: [name]})


@pytest.mark.parametrize("name", ["Алла", "CHVRCHΞS"])
def test_letters_of_their_own_script_are_no_mistake(name: str) -> None:
    assert read_name(name) == name


def test_two_spellings_of_one_name_are_one() -> None:
    with pytest.raises(ValueError, match="'Straße' and 'strasse', two spellings of one name"):
        composed_run("concepts=custom", values={"concepts.names": ["Straße", "strasse"]})


@pytest.mark.parametrize("name", ["CON", "aux", "Com1"])
def test_no_file_is_named_like_a_device_of_windows(name: str) -> None:
    assert concept(name).slug == f"{name.lower()}-name"
    assert concept("Console").slug == "console"


@pytest.mark.parametrize("other", ["Timothee Chalamet", "Aaron Pauls", "Aaron", "AaronPaul"])
def test_other_names_have_other_keys(other: str) -> None:
    assert name_key(other) not in {name_key(ACCENTED), name_key("Aaron Paul")}


def test_a_concept_and_all_that_is_said_of_it_meet_in_any_spelling() -> None:
    [made] = build_concepts(
        [DECOMPOSED],
        Kind.person,
        kinds={"timothée-chalamet": Kind.object},
        anchors=ANCHORS,
        anchor_per_concept={ACCENTED.upper(): "an actor"},
    )
    assert made == Concept(ACCENTED, Kind.object, "an actor")
    config = composed_run(
        "concepts=custom", "concepts.names=[Aaron Paul]", "++overrides={aaron-paul: {lora.rank: 3}}"
    )
    assert config.concept_lora("Aaron Paul").rank == 3


def test_a_name_that_is_not_erased_is_refused_with_the_one_that_is() -> None:
    for wrong, said in (
        ("Timothee Chalamet", f"Did you mean '{ACCENTED}'"),
        ("Adam", "concepts are"),
    ):
        with pytest.raises(ValueError, match=said):
            build_concepts(
                [ACCENTED],
                Kind.person,
                kinds={wrong: Kind.object},
                anchors=ANCHORS,
                anchor_per_concept={},
            )
    with pytest.raises(ValueError, match=r"kinds names 'Aaron Paul' twice, .* as 'aaron-paul'"):
        build_concepts(
            ["Aaron Paul"],
            Kind.person,
            kinds={"Aaron Paul": Kind.object, "aaron-paul": Kind.style},
            anchors=ANCHORS,
            anchor_per_concept={},
        )


@pytest.mark.parametrize("name", ["aaron-paul", "Aaron_Paul", "Áaron Paul"])
def test_nobody_is_erased_in_one_spelling_and_kept_in_another(name: str) -> None:
    """To the model they are two names: which one is meant is asked, and the known one proposed."""
    with pytest.raises(ValueError, match=r"kept.people spells 'Aaron Paul': .*='\[Aaron Paul\]'"):
        composed_run(
            "concepts=custom", f"concepts.names=['{name}']", "kept.people=[Amy Adams,Aaron Paul]"
        )
    config = composed_run(
        "concepts=custom", "concepts.names=[aaron paul]", "kept.people=[Amy Adams,Aaron Paul]"
    )
    held = names_of(CaptionSource.names, config.kept, erased=["aaron-paul"])
    assert "Amy Adams" in held and "Aaron Paul" not in held


def test_the_spelling_that_a_list_knows_is_found() -> None:
    known = ["Amy Adams", ACCENTED, "Beyoncé"]
    assert nearest_name("Timothee Chalamet", known) == ACCENTED
    assert nearest_name("beyonce", known) == other_spelling("Beyonce", known) == "Beyoncé"
    assert nearest_name("somebody", known) is other_spelling("amy adams", known) is None


def test_prompts_take_over_the_spelling_of_their_concept() -> None:
    made = concept("Aaron Paul")
    assert (
        spelled_prompt("A photo of aaron-paul, smiling", made) == "A photo of Aaron Paul, smiling"
    )
    assert spelled_prompt("AARON PAUL's dog", made) == "AARON PAUL's dog"
    found = spelled_prompt(f"a photo of {DECOMPOSED}", concept(ACCENTED))
    assert found == f"a photo of {ACCENTED}"
    assert anchor_prompt(f"a {DECOMPOSED} at night", concept(ACCENTED)) == "a person at night"


AN = (
    *("hourglass", "X-ray", "x-ray", "MRI", "airplane", "honest man", "heirloom", "umbrella"),
    *("unidentified object", "underpass", "8-bit console", "11-year-old", "18-wheeler", "F-16"),
    *("Xbox", "nth guest", "HIV test", "NYPD car", "Øresund bridge", "œuvre", "unironed shirt"),
    *("urn", "LED", "SUV", "HTML page", "Élan", "uninvited guest", "egg", "FBI agent", "igloo"),
    *("YVONNE", "Ewok", "FAA chart", "SAT book", "8,000 pins", "H2O bottle", "XVIII century hall"),
)
A = (
    *("unicorn", "European", "NASA rocket", "UFO", "USB stick", "uniform", "university"),
    *("one-eyed cat", "ukulele", "ship", "SHIP", "FROG", "T-shirt", "1950s car", "10"),
    *("UNESCO site", "UEFA cup", "Uruguay map", "Uyghur hat", "xylophone", "Ouagadougou street"),
    *("house", "honeycomb", "ewe", "used car", "U-boat", "yacht", "L'Oréal bottle", "eucalyptus"),
    *("YMCA hall", "YSL bag", "YETI", "Ewing jersey", "unanimous jury", "Oaxacan rug"),
)


@pytest.mark.parametrize(("article", "nouns"), [("an", AN), ("a", A)])
def test_articles_follow_the_sound(article: str, nouns: tuple[str, ...]) -> None:
    wrong = [noun for noun in nouns if with_article(noun) != f"{article} {noun}"]
    assert wrong == []


def test_articles_stand_in_built_in_prompts_and_in_the_users_templates() -> None:
    prompts = training_prompts(Concept("hourglass", Kind.object, "a vase"), 30)
    assert any(" an hourglass" in each for each in prompts)
    assert not any(" a hourglass" in each for each in prompts)
    assert filled("A photo of a {} at night", "hourglass") == "A photo of an hourglass at night"
    assert filled("An {}", "unicorn") == "A unicorn"
    assert filled("a photo of {}, an actor", "Adam Driver") == "a photo of Adam Driver, an actor"
