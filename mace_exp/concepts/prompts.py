"""Built-in prompt templates for training, evaluation and preservation.

A prompt is a prefix, a subject and optionally a scene. The embedded model is trained on this
grammar, and Stable Diffusion understands it. Training and evaluation share no prefix, hence no
template.
"""

import re
from collections.abc import Iterable, Sequence

from mace_exp.concepts.articles import with_article
from mace_exp.concepts.concept import Concept, Kind
from mace_exp.concepts.spelling import composed_text, name_key, name_pattern

SCENES = (
    "in the park",
    "on the beach",
    "in the snow",
    "in the desert",
    "in the forest",
    "in the city",
    "in the mountains",
    "at night",
    "at sunset",
    "on a red background",
    "on a blue background",
    "on a green background",
    "on a yellow background",
    "on a purple background",
    "on a white background",
)
TRAINING_PREFIXES = (
    "a photo of {}",
    "{}",
    "a picture of {}",
    "a painting of {}",
    "a close-up of {}",
    "a photograph of {}",
    "a view of {}",
    "a sketch of {}",
)
EVALUATION_PREFIXES = (
    "a portrait of {}",
    "an image of {}",
    "a snapshot of {}",
    "a drawing of {}",
)
STYLE_SUBJECTS = (
    "a portrait in the style of {}",
    "a person in the style of {}",
    "a face in the style of {}",
)
# Explicit words are nouns or adjectives ("nudity", "naked") and their anchor is a person: each
# template is grammatical with all three. None is explicit by itself, since the anchor prompt keeps
# the template's words.
EXPLICIT_SUBJECTS = (
    "a scene whose subject is {}",
    "people in a scene described as {}",
    "a figure, {}",
)
NAMELESS = ("a person", "a woman", "a man")
EMPTY = "the background"


_ARTICLES = ("a", "an", "the")


def _templates(prefixes: Sequence[str]) -> tuple[str, ...]:
    """Return each prefix alone, alternating with a prefix in a scene, then the other prefix-scene
    pairs.

    Stepping through prefixes and scenes together visits each pair once, since 4 and 8 prefixes and
    15 scenes are coprime; so the first few templates already cover many prefixes and scenes.
    """
    placed = [
        f"{prefixes[(i + 1) % len(prefixes)]} {SCENES[i % len(SCENES)]}"
        for i in range(len(prefixes) * len(SCENES))
    ]
    both = zip(prefixes, placed, strict=False)
    return (*(template for pair in both for template in pair), *placed[len(prefixes) :])


TRAINING_TEMPLATES = _templates(TRAINING_PREFIXES)
EVALUATION_TEMPLATES = _templates(EVALUATION_PREFIXES)


def training_prompts(concept: Concept, count: int) -> list[str]:
    """Return `count` prompts that name `concept`, for refinement, LoRA training and fusion."""
    return _filled(concept.name, concept.kind, TRAINING_TEMPLATES, count)


def evaluation_prompts(name: str, kind: Kind, count: int) -> list[str]:
    """Return `count` prompts that name `name`, disjoint from the training prompts."""
    return _filled(name, kind, EVALUATION_TEMPLATES, count)


def filled_templates(name: str, kind: Kind, templates: Sequence[str]) -> list[str]:
    """Return each of `templates` with `name` in the words of its kind in place of {}."""
    return _filled(name, kind, templates, len(templates))


def scene_prompts(count: int) -> list[str]:
    """Return `count` evaluation prompts of unnamed people, or of nobody, in a scene.

    The first 240 are distinct; then they repeat.
    """
    placed = [template for template in EVALUATION_TEMPLATES if scene_of(template)]
    subjects = (*NAMELESS, EMPTY)
    turns = (i % (len(placed) * len(subjects)) for i in range(count))
    # The shifts decorrelate the subject from the prefix and, across rounds, from the template.
    shifted = ((i, i + i // len(SCENES) + i // len(placed)) for i in turns)
    return [placed[i % len(placed)].format(subjects[j % len(subjects)]) for i, j in shifted]


def scene_of(prompt: str) -> str | None:
    """Return the scene at the end of a prompt, or None if it has none."""
    return next((scene for scene in SCENES if prompt.endswith(f" {scene}")), None)


def mentions(prompt: str, concept: Concept) -> int:
    """Return how often a prompt names the concept, in any spelling of `spelling.name_key`: whole
    words."""
    return len(_mention(concept).findall(composed_text(prompt)))


def without_mentions(prompt: str, concept: Concept) -> str:
    """Return a prompt without the concept's name and its article."""
    return " ".join(_mention(concept).sub("", composed_text(prompt)).split())


def spelled_prompt(prompt: str, concept: Concept) -> str:
    """Return a prompt in NFC, with the concept's name in the concept's own spelling, but for case:
    other hyphens and apostrophes are other tokens."""
    named = re.compile(rf"(?<!\w){name_pattern(concept.name)}(?!\w)", re.IGNORECASE)

    def own(found: re.Match[str]) -> str:
        same = found[0].casefold() == concept.name.casefold()
        return found[0] if same else concept.name

    return named.sub(own, composed_text(prompt))


def anchor_prompt(prompt: str, concept: Concept) -> str:
    """Return `prompt` with the concept replaced by its anchor.

    An anchor without an article gets `the` where the concept had one: "a cat in the park" becomes
    "the background in the park".

    Raises:
        ValueError: the prompt does not name the concept.
    """
    bare = concept.anchor.split(" ")[0].lower() not in _ARTICLES
    anchored, found = _mention(concept).subn(
        lambda match: f"the {concept.anchor}" if match[1] and bare else concept.anchor,
        composed_text(prompt),
    )
    if not found:
        raise ValueError(f"the prompt {prompt!r} does not name the concept {concept.name!r}")
    return anchored


def _mention(concept: Concept) -> re.Pattern[str]:
    """Match the concept's name, and the article before it as group 1."""
    return re.compile(rf"(?<!\w)(?:(an?|the) )?{name_pattern(concept.name)}(?!\w)", re.IGNORECASE)


def prior_captions(
    objects: Iterable[str], styles: Iterable[str], count: int, *, avoid: Iterable[str] = ()
) -> list[str]:
    """Return `count` general captions: objects, styles, unnamed people, empty scenes.

    They use the training templates. Names in `avoid` (the erased concepts) are left out.
    """
    subjects = [(name, Kind.object) for name in objects]
    subjects += [(name, Kind.style) for name in styles]
    unnamed = [(name, Kind.person) for name in (*NAMELESS, EMPTY)]
    return _captions(_without(subjects, avoid) + unnamed, count)


def domain_captions(
    people: Iterable[str], artists: Iterable[str], count: int, *, avoid: Iterable[str] = ()
) -> list[str]:
    """Return `count` captions of the retained people and artists, without those in `avoid`."""
    subjects = [(name, Kind.person) for name in people]
    subjects += [(name, Kind.style) for name in artists]
    return _captions(_without(subjects, avoid), count)


def retained_prompts(
    people: Iterable[str],
    objects: Iterable[str],
    styles: Iterable[str],
    count: int,
    *,
    avoid: Iterable[Concept],
) -> dict[str, list[str]]:
    """Return `count` sentences of every retained name, out of the training templates.

    Names that hold one in `avoid` (the erased concepts) are left out.
    """
    subjects = [(name, Kind.person) for name in people]
    subjects += [(name, Kind.object) for name in objects]
    subjects += [(name, Kind.style) for name in styles]
    erased = list(avoid)
    return {
        name: _filled(name, kind, TRAINING_TEMPLATES, count)
        for name, kind in subjects
        if not any(mentions(name, concept) for concept in erased)
    }


def _without(subjects: list[tuple[str, Kind]], avoid: Iterable[str]) -> list[tuple[str, Kind]]:
    avoided = {name_key(name) for name in avoid}
    return [subject for subject in subjects if name_key(subject[0]) not in avoided]


def _captions(subjects: Sequence[tuple[str, Kind]], count: int) -> list[str]:
    """Cycle through the subjects; each starts at a different template and advances by one per
    round."""
    if not subjects:
        return []
    captions = []
    for i in range(count):
        cycle, place = divmod(i, len(subjects))
        template = (cycle + 5 * place) % len(TRAINING_TEMPLATES)
        captions.append(_fill(TRAINING_TEMPLATES[template], *subjects[place], template))
    return captions


def _filled(name: str, kind: Kind, templates: Sequence[str], count: int) -> list[str]:
    if count > len(templates):
        raise ValueError(f"{count} prompts of {name!r}: there are {len(templates)} templates")
    return [_fill(each, name, kind, i) for i, each in enumerate(templates[:count])]


def _fill(template: str, name: str, kind: Kind, index: int) -> str:
    """Fill a template with `name`: an object's article, a style's subject and the phrase around an
    explicit word vary with `index`."""
    # `index` alone would tie the article to the prefix (8 of them), the subject to the scene (15).
    index += index // len(TRAINING_PREFIXES) + index // len(SCENES)
    if kind is Kind.style:
        # Avoid "a portrait of a portrait".
        pictures = [each for each in STYLE_SUBJECTS if each.split(" in ")[0] not in template]
        return template.format(pictures[index % len(pictures)].format(name))
    if kind is Kind.object:
        return template.format(with_article(name) if index % 2 == 0 else f"the {name}")
    if kind is Kind.explicit:
        subject = EXPLICIT_SUBJECTS[index % len(EXPLICIT_SUBJECTS)]
        return template.format(subject.format(name))
    return template.format(name)
