"""The crossing to dataclasses: ranges, contradictions, files that are not there."""

from dataclasses import fields, is_dataclass
from typing import get_type_hints

import numpy as np
import pytest

from mace_exp.concepts.concept import Kind
from mace_exp.config.options import VARIANTS
from mace_exp.config.run_config import RunConfig
from mace_exp.config.suggestions import suggestion
from mace_exp.data.masks.attention import AttentionMasks
from mace_exp.data.masks.none import NoMasks
from mace_exp.evaluation.judges import JUDGES
from mace_exp.mini.judge import MiniJudge, Recogniser
from mace_exp.utils.ranges import POSITIVE, PROPORTION, Range, expected
from tests.composing import composed


def test_the_default_run_is_ten_people_of_the_embedded_model() -> None:
    config = composed()
    assert config.model.name == "mini"
    assert len(config.concept_list()) == 10
    assert config.method.name == "mace" and config.chosen_stages() == [
        *("images", "masks", "preservation", "cfr", "lora", "fusion", "samples", "metrics"),
        "report",
    ]
    assert isinstance(config.masks, AttentionMasks)
    assert isinstance(composed("masks=none").masks, NoMasks)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lora.rank=0", "lora.rank = 0 is out of range: it must be at least 1"),
        ("lora.dropout=1", "it must be at least 0 and below 1, as in lora.dropout=0"),
        ("lora.learning_rate=0", "it must be above 0"),
        ("lora.concepts_per_batch=0", "lora.concepts_per_batch = 0: it takes a whole number, at"),
        ("lora.concepts_per_batch=many", "or auto, as in lora.concepts_per_batch=auto"),
        ("lora.learning_rate=nan", "lora.learning_rate = nan is out of range"),
        ("lora.learning_rate=inf", "lora.learning_rate = inf is out of range"),
        ("masks.threshold=1.5", "it must be at least 0 and at most 1"),
        ("preservation.prior.count=-1", "preservation.prior.count = -1"),
        ("sampling.height=4", "sampling.height = 4"),
        ("sampling.width=100", "take 96, or null"),
        ("lora.t1=500", "lora.t1 = 500 is not below lora.t2 = 400"),
        ("lora.targets=[to_k,to_vv]", "names to_vv"),
        ("lora.targets=[]", "names nothing"),
        ("lora.targets=[to_k,to_q]", "names to_q"),
        ("images=folder", "images.path is not set: give images.path="),
        ("prior_images=lists", "prior_images.images is not set"),
        ("prompts.count=200", "prompts.count = 200: "),
        ("evaluation.templates=65", "at most 64"),
        (
            "evaluation.parts=[]",
            "evaluation.parts = []",
        ),
        ("sampling.height=128", "sampling.height = 128 with judge = mini"),
        ("sampling.width=64", "give sampling.width=null, or judge=none"),
        ("stages=[]", "stages = []: give at least one"),
        ("stages=[lora,lora]", "stages = ['lora', 'lora']"),
        ("preservation.prior.count=0", "cfr.prior_weight = 300, but"),
        ("kept=none", "cfr.domain_weight = 300, but"),
        ("concepts.names=[]", "concepts.names is empty"),
        ("concepts.names=[cat]", "kept.objects lists: give concepts.kind=object"),
        ("concepts.names=[Pixel Art]", "kept.styles lists: give concepts.kind=style"),
        ("anchors.person=Adam Driver", "the anchor of 'Adam Driver' is 'Adam Driver'"),
        ("masks=precomputed", "masks.path is not set: give masks.path="),
        ("prompts=file", "prompts.path is not set"),
        ("preservation=captions", "preservation.prior.file is not set"),
        ("preservation.prior.file=/nowhere", "preservation.prior.file = /nowhere"),
        ("model.source=/nowhere/at/all", "model.source = /nowhere/at/all: model source"),
    ],
)
def test_wrong_values_are_refused(override: str, message: str) -> None:
    with pytest.raises(ValueError, match="(?s)" + message.replace("[", r"\[")):
        composed(override)


def test_captions_of_neighbours_need_one_who_is_not_erased() -> None:
    kept = ("kept.people=[adam driver]", "kept.artists=[]")
    with pytest.raises(ValueError, match="cfr.domain_weight = 300, but .*erased"):
        composed("concepts.names=[Adam Driver]", *kept)
    assert composed("concepts.names=[Amy Adams]", *kept)


def test_a_part_that_holds_nothing_is_no_evaluation() -> None:
    """What is erased is drawn in no other part: erasing all objects leaves none that stay."""
    object_parts = ("concepts=object_10", "evaluation.parts=[objects]")
    with pytest.raises(ValueError, match=r"evaluation.parts = \['objects'\]"):
        composed(*object_parts)
    assert composed("concepts=object_cat", "evaluation.parts=[objects]")
    assert composed("concepts=object_10", "evaluation.parts=[objects,general]")


def test_pictures_that_no_judge_sees_may_have_any_size() -> None:
    assert composed("sampling.height=96", "sampling.width=96")
    assert composed("sampling.height=128", "judge=none")
    assert composed("sampling.height=128", "evaluation=none")
    assert composed("sampling.height=128", "stages=[images,masks]")


def test_the_judge_reads_pictures_of_the_size_that_is_checked() -> None:
    judge, side = MiniJudge(Recogniser()), JUDGES["mini"].side
    assert side is not None
    assert len(judge.features(np.zeros((2, side, side, 3), np.uint8))) == 2
    with pytest.raises(ValueError, match="the judge reads pictures of"):
        judge.features(np.zeros((2, side + 8, side, 3), np.uint8))


def test_all_ranges_are_reported_together() -> None:
    with pytest.raises(ValueError, match=r"(?s)lora\.rank = 0.*sampling\.steps = -3"):
        composed("lora.rank=0", "sampling.steps=-3")


def test_no_prior_is_fine_where_nothing_weighs_it() -> None:
    config = composed("preservation.prior.count=0", "preservation.prior_weight=0")
    assert config.cfr.prior_weight == 0


def test_kinds_can_be_mixed() -> None:
    concepts = composed(
        "concepts=custom", "concepts.names=[Adam Driver,cat]", "+concepts.kinds={cat: object}"
    ).concept_list()
    assert [(c.kind, c.anchor) for c in concepts] == [
        (Kind.person, "a person"),
        (Kind.object, "background"),
    ]


def test_every_key_says_what_it_takes() -> None:
    schemas = {RunConfig, *(each for group in VARIANTS.values() for each in group.values())}
    schemas |= {type(getattr(composed(), field.name)) for field in fields(RunConfig)}
    hints = [hint for each in schemas if is_dataclass(each) for hint in key_types(each)]
    assert len(hints) > 80
    for name, hint in hints:
        assert expected(name, hint)


def key_types(schema: object) -> list[tuple[str, object]]:
    hints = get_type_hints(schema, include_extras=True)
    keys = [field.name for field in fields(schema)]  # type: ignore[arg-type]
    return [(name, hints[name]) for name in keys if not is_dataclass(hints[name])]


def test_ranges_say_what_they_hold() -> None:
    assert str(PROPORTION) == "at least 0 and at most 1"
    assert PROPORTION.holds(1) and not PROPORTION.holds(1.01)
    assert not POSITIVE.holds(0) and not Range().holds(float("nan"))


def test_suggestions_are_close_or_absent() -> None:
    assert suggestion("rnak", ["rank", "alpha"], "lora.") == " Did you mean lora.rank?"
    assert suggestion("entirely", ["rank", "alpha"]) == ""
    assert suggestion("ATT", ["none", "attention"]) == " Did you mean attention?"
    assert suggestion("off", ["none", "attention"]) == " Did you mean none?"
    assert suggestion("", ["rank", "alpha"]) == ""


def test_a_model_chooses_its_judge() -> None:
    assert composed().judge.name == "mini"
    assert composed("model=sd_v1_4").judge.name == "none"
    assert composed("model=sd_v1_4", "judge=mini", "evaluation=none").judge.name == "mini"


@pytest.mark.parametrize(
    "override", ["model.judge=none", "+model.judge=none", "++model.judge=mini"]
)
def test_the_judge_as_a_key_of_the_model_is_refused_with_the_group(override: str) -> None:
    with pytest.raises(ValueError, match="model.judge: .* give judge=none, or"):
        composed(override)
