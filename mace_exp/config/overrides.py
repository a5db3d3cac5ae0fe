"""Read and validate the settings of single concepts."""

import copy
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mace_exp.concepts.concept import UNMASKED, Concept, by_concept
from mace_exp.config.concept_settings import MASK_OVERRIDES, ConceptSettings, values_of
from mace_exp.config.refusals import explain
from mace_exp.config.run_config import RunConfig
from mace_exp.config.suggestions import as_typed
from mace_exp.methods.mace.schema import JOINT_LORA_KEY
from mace_exp.utils.ranges import out_of_range

Values = dict[str, Any]
"""Settings by dotted key, such as {"lora.rank": 4, "masks": "none"}."""


def typed_overrides(composed: DictConfig, config: RunConfig) -> tuple[dict[str, Values], list[str]]:
    """Return the settings that differ from the run's, by concept, and a list of error messages.

    `config` is the configuration of the run without overrides. Values are merged into a copy of
    the composed group. So they get the types of the schema, and interpolations refer to the
    concept's values: its alpha follows its rank.

    Raises:
        ValueError: settings of a name that is not erased.
    """
    given: Any = OmegaConf.to_container(composed.overrides, resolve=True)
    concepts = {concept.name: concept for concept in config.concept_list()}
    given = by_concept("overrides", given, list(concepts))
    typed: dict[str, Values] = {}
    problems: dict[str, None] = {}
    for name, own in given.items():
        reader, pairs = _Reader(composed, config, concepts[name]), list(flattened(own))
        refused = list(reader.refusals(pairs))
        if not refused:
            typed[name], refused = reader.typed(dict(pairs))
        problems |= dict.fromkeys(refused)
    return typed, list(problems)


def flattened(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value): `{lora: {rank: 4}}` is equivalent to `{lora.rank: 4}`."""
    for key, value in given.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", each) for inner, each in flattened(value))
        else:
            yield key, value


@dataclass(frozen=True)
class _Reader:
    """Reads the settings of one concept."""

    composed: DictConfig
    config: RunConfig
    concept: Concept

    @property
    def prefix(self) -> str:
        return f"overrides.{self.concept.name}."

    def refusals(self, pairs: list[tuple[str, Any]]) -> Iterator[str]:
        """Yield a message for each key that is not allowed, or contradicts another one."""
        keys, known = [key for key, _ in pairs], self.config.general().allowed_keys()
        joint, unmasked = not self.config.lora.per_concept, self.concept.kind in UNMASKED
        for key, value in pairs:
            shown = f"{self.prefix}{key} = {as_typed(value)}"
            if keys.count(key) > 1:
                yield f"{self.prefix}{key} is given twice, as {key} and in a mapping: give it once"
            elif key not in known:
                yield f"{shown}: {self._unknown(key, value, known)}"
            elif key.startswith("lora.") and joint and key != JOINT_LORA_KEY:
                yield (
                    f"{shown} with lora.per_concept = false: one LoRA serves all concepts, and a "
                    f"concept may override only {JOINT_LORA_KEY} of it; give {key} for all "
                    "concepts, or lora.per_concept=true"
                )
            elif key == "masks" and value not in list(MASK_OVERRIDES):
                yield (
                    f"{shown}: a concept may only override masks with "
                    f"{' or '.join(MASK_OVERRIDES)}, as in {self.prefix}masks=none; the source of "
                    "all other masks is a setting of the run"
                )
            elif key.startswith("masks") and unmasked and value != "none":
                yield (
                    f"{shown}: {self.concept.name} is of kind {self.concept.kind.name}, which "
                    "fills the image and is trained without masks; remove it, or set another "
                    "kind with concepts.kinds"
                )
            elif key.startswith("masks.") and "masks" in keys:
                yield f"{shown} has no effect with masks = {dict(pairs)['masks']}: give one of them"

    def typed(self, values: Values) -> tuple[Values, list[str]]:
        """Return the typed values, including interpolated ones, and error messages."""
        found = {key: value for key, value in values.items() if key == "masks"}
        problems: list[str] = []
        for group in fields(ConceptSettings):
            own = values_of(group.name, values)
            if own:
                settings, wrong = self._merged(group.name, own)
                problems += wrong
                if not wrong:
                    found |= self._differing(group.name, settings, own)
        return found, problems

    def _differing(self, group: str, settings: Any, own: Values) -> Values:
        """Return the given values, and all others that differ from the run's."""
        general = getattr(self.config, group)
        pairs = {field.name: getattr(settings, field.name) for field in fields(general)}
        return {
            f"{group}.{name}": value
            for name, value in pairs.items()
            if name in own or value != getattr(general, name)
        }

    def _merged(self, group: str, own: Values) -> tuple[Any, list[str]]:
        """Return a group with the concept's values, or None if that fails, and error messages."""
        node = copy.deepcopy(self.composed[group])  # keeps its parent, for interpolations
        wrong = [message for key, value in own.items() for message in _set(node, key, value)]
        if not wrong:
            try:
                settings = OmegaConf.to_object(node)
                return settings, list(out_of_range(settings, f"{self.prefix}{group}."))
            except OmegaConfBaseException as error:
                wrong = [explain(error)]
            except ValueError as error:
                wrong = [str(error)]
        return None, [f"{self.prefix}{message}" for message in wrong]

    def _unknown(self, key: str, value: object, known: list[str]) -> str:
        """Return the message for a key that is not allowed: a setting of the run, or a typo."""
        if _is_runs(self.config, key):
            why = f"{key} applies to all concepts; give {key}={as_typed(value)} for the run."
        else:
            why = f"a concept can't override it.{self._nearest(key, known)}"
        return f"{why} Keys that a concept can override in this run: {', '.join(known)}."

    def _nearest(self, key: str, known: list[str]) -> str:
        """Suggest the most similar key, compared as a whole or by the last part."""
        last = {each.rpartition(".")[2]: each for each in known}
        bare = key.rpartition(".")[2]
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.7)
        close += [last[each] for each in difflib.get_close_matches(bare, last, n=1, cutoff=0.7)]
        return f" Did you mean {self.prefix}{close[0]}?" if close else ""


def _is_runs(config: RunConfig, key: str) -> bool:
    """Return whether the run has this key."""
    found: Any = config
    for part in key.split("."):
        if not is_dataclass(found) or part not in {field.name for field in fields(found)}:
            return False
        found = getattr(found, part)
    return not is_dataclass(found)


def _set(node: DictConfig, key: str, value: object) -> Iterator[str]:
    """Set one value; yield a message if it has the wrong type."""
    try:
        OmegaConf.update(node, key, value, merge=False)
    except OmegaConfBaseException as error:
        yield explain(error)
