"""Concept gates in a run.

Every gate reads the input h of the gated layer's MLP, opens only on the states of one concept, and
adds the change that maps them to those of its anchor (`neurons`, `detectors`), or makes up for
tokens of the name that have no gate (`compensation`). All other states are computed as before. This
spares names that are not in the retain set, whereas a linear edit of keys and values changes all
states that are similar to those of an erased concept.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mace_exp.concepts.concept import Concept
from mace_exp.concepts.prompts import anchor_prompt, mentions
from mace_exp.methods.base import Edit, NoIntermediateStates
from mace_exp.methods.gates.attention import AnchorAttention, AttentionLayer
from mace_exp.methods.gates.compensation import Pairs, compensated
from mace_exp.methods.gates.detectors import MIN_GAP
from mace_exp.methods.gates.fitting import Gates as FittedGates
from mace_exp.methods.gates.fitting import fit_gates
from mace_exp.methods.gates.kept import FILE, KeptGates, kept_gates
from mace_exp.methods.gates.names import made_up_names, sentences_of
from mace_exp.methods.gates.schema import GateSettings
from mace_exp.methods.gates.states import gated_layer
from mace_exp.methods.token_pairs import Tokens, paired_tokens
from mace_exp.models.projections import ALL_PROJECTIONS, cross_attention_projections
from mace_exp.models.text import TEXT_ENCODERS
from mace_exp.runs.folder import RunFolder
from mace_exp.runs.result import Result, result_key
from mace_exp.utils.errors import naming_setting
from mace_exp.utils.hashing import key_of
from mace_exp.utils.tensors import load_tensors, save_tensors

log = logging.getLogger(__name__)

STEP = "gates"
VERSION = 9
ACTIVATIONS = ("gelu", "quick_gelu")
"""Activations that are nearly 0 for very negative inputs and nearly the identity for large ones."""


class Gates(NoIntermediateStates[GateSettings]):
    """Hidden neurons in the text encoder; the UNet is read, and not changed."""

    def check(self) -> None:
        """Refuse text encoders other than CLIP, and sentences that do not name their concept."""
        encoder = self.context.model.encoder
        for branch in encoder.branches:
            gated_layer(branch)
            activation: Any = getattr(branch.model, "config", None)
            if getattr(activation, "hidden_act", None) not in ACTIVATIONS:
                raise ValueError(
                    f"method=gates: the text encoder's activation is {activation.hidden_act!r}; "
                    f"gates are written for {' and '.join(ACTIVATIONS)}: choose another method"
                )
        for concept, pairs in self._sentences.items():
            for old, new in pairs:
                paired_tokens(encoder, concept, old, new, Tokens.all)
        if self.config.compensation_images:
            with naming_setting(f"method.compensation_images = {self.config.compensation_images}"):
                cross_attention_projections(self.context.model.pipeline.unet, ALL_PROJECTIONS)
        self.given.retained  # noqa: B018 -- refuses sums without captions

    def files(self) -> Mapping[str, Any]:
        return {"gates": self.context.folder.name_of(self._file)}

    @cached_property
    def edit(self) -> Result[Edit]:
        """The gated layer's MLP of every text encoder, with the gates' hidden neurons added."""
        model, retained = self.context.model, self.given.retained
        sentences = {each.slug: pairs for each, pairs in self._sentences.items()}
        key = result_key(
            STEP,
            VERSION,
            encoder=model.text_fingerprint,
            sentences=key_of({"pairs": sentences}),
            retained=key_of({"captions": retained}),
            method=asdict(self.config),
            seed=self.settings.seed,
            **({"kept": self.kept.key} if self.kept.key else {}),
            **self._drawn_by,
            **model.precision,
        )

        def make() -> Edit:
            entry = self.context.entry(STEP, "gates", key, self._fit)
            neurons, facts = load_tensors(entry)
            if self.context.may_make(STEP):
                save_tensors(self._file, neurons, facts)
            return Edit(self._widened(neurons))

        return Result(key, make, stored={"gates": {key: 1}})

    @cached_property
    def kept(self) -> KeptGates:
        """The gates of the run that this one revises; empty if it revises none."""
        if not self.settings.revises:
            return KeptGates()
        earlier = RunFolder(Path(self.settings.revises))
        return kept_gates(earlier, self.context.model)

    @property
    def _drawn_by(self) -> dict[str, Any]:
        """What determines the queries of the compensation; part of the key. Whether it is needed is
        only known when the detectors are fitted."""
        if not self.config.compensation_images:
            return {}
        model = self.context.model
        return {"unet": model.fingerprint, "latents": model.latent_shape}

    @property
    def _file(self) -> Path:
        return self.context.folder.root / FILE

    @cached_property
    def _sentences(self) -> dict[Concept, list[tuple[str, str]]]:
        """The sentences of each concept that name it exactly once, paired with the anchor's."""
        found = {}
        for concept in self.given.concepts:
            texts = self.given.sentences[concept.slug]
            once = [text for text in texts if mentions(text, concept) == 1]
            if not once:
                raise ValueError(
                    f"method=gates: no training sentence names {concept.name!r} just once: give "
                    "some by prompts=file"
                )
            found[concept] = [(text, anchor_prompt(text, concept)) for text in once]
        return found

    def _fit(self, path: Path) -> None:
        encoder = self.context.model.encoder
        erased = [concept.name for concept in self.given.concepts]
        names = made_up_names(
            encoder.tokenizer, erased, self.config.random_names, self.settings.seed
        )
        made_up = sentences_of(names)
        made_up = [s for s, fits in zip(made_up, encoder.fits(made_up), strict=True) if fits]
        gates = fit_gates(
            encoder, self._sentences, self.given.retained, made_up, self.config, kept=self.kept
        )
        if self.config.compensation_images:
            gates = self._compensated(gates)
        facts = {"gaps": json.dumps(gates.gaps), "mismatch": json.dumps(gates.mismatch)}
        unclear = [slug for slug, gap in gates.gaps.items() if gap <= MIN_GAP]
        if unclear:
            log.warning(
                "the text encoder's states of %s can't be told apart from those of others: their "
                "gates may open for these",
                ", ".join(unclear),
            )
        tensors = {}
        branches = zip(TEXT_ENCODERS, gates.branches, gates.concepts, gates.units, strict=False)
        for component, neurons, concepts, units in branches:
            tensors |= {f"{component}.{name}": each for name, each in vars(neurons).items()}
            facts[f"{component}.concepts"] = json.dumps(concepts)
            facts[f"{component}.units"] = json.dumps(units)
        save_tensors(path, tensors, facts)

    def _compensated(self, gates: FittedGates) -> FittedGates:
        model, count = self.context.model, self.config.compensation_images
        attention = AnchorAttention(model, seed=self.settings.seed)

        def layers(pairs: Pairs) -> list[AttentionLayer]:
            return attention.layers([pairs[i % len(pairs)][1] for i in range(count)])

        return compensated(gates, model.encoder, self._sentences, layers, kept=self.kept)

    def _widened(self, neurons: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the parameters of the MLPs that the neurons are added to."""
        weights: dict[str, Tensor] = {}
        branches = self.context.model.encoder.branches
        for component, branch in zip(TEXT_ENCODERS, branches, strict=False):
            name, layer = gated_layer(branch)
            read, bias, write = (
                neurons[f"{component}.{each}"] for each in ("read", "bias", "write")
            )
            added = {"fc1.weight": (read, 0), "fc1.bias": (bias, 0), "fc2.weight": (write, 1)}
            for parameter, (extra, axis) in added.items():
                original = layer.mlp.get_parameter(parameter).detach().float().cpu()
                place = f"{component}.{name}.mlp.{parameter}"
                weights[place] = torch.cat([original, extra], dim=axis)
        return weights
