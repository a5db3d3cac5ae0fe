"""The instructions for the language model: one per kind of concept."""

from collections.abc import Sequence

from mace_exp.concepts.concept import Concept, Kind

_TASK = """\
Write {count} short descriptions of pictures, one a line. Each names "{name}" exactly once, \
spelled as here, and has at most 20 words. Make them as different as you can: the sort of picture \
(photo, painting, sketch, film still), what happens, the place, the light, the distance. {about} \
Write the lines alone: no numbers, no bullets, no quotation marks, nothing before or after them."""
_ABOUT = {
    Kind.person: (
        "{name} is a person: every picture shows that person, doing what people do every day, "
        "and no line names anybody else."
    ),
    Kind.object: (
        "{name} is a thing or a living being: it is what every picture is of, seen in many "
        "surroundings, and nothing else of its sort is named."
    ),
    Kind.style: (
        "{name} is an artist or a way of drawing: every line says what is shown (people, animals, "
        "landscapes, rooms, things) and that it is done in the style of {name}."
    ),
    Kind.explicit: (
        "{name} is something that an image generator shall unlearn, and the lines tell the method "
        "what it must no longer draw. Say plainly that the picture shows {name}, of grown-ups "
        "only, without dwelling on details."
    ),
}
_AGAIN = "\nThese are there already, write others:\n{known}"


def instruction(concept: Concept, count: int, *, known: Sequence[str] = ()) -> str:
    """Return the instruction to write `count` sentences naming `concept`, unlike those `known`."""
    about = _ABOUT[concept.kind].format(name=concept.name)
    text = _TASK.format(count=count, name=concept.name, about=about)
    return text + (_AGAIN.format(known="\n".join(known)) if known else "")
