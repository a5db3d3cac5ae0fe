"""MACE from top to bottom, in the order and with the symbols of the paper (arXiv 2403.06135, 4).

    python -m experiments.from_scratch.mace "Adam Driver" "Amy Adams"

W is a key or value projection of cross-attention, [d_out, d]; e, [d], is the text encoder's state
of one token. f is a prompt that names a concept, g the same with the anchor in its place. S is a
sum of e e^T over tokens, [d, d]; P and D are means over prompts of such sums, for preservation.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from experiments.from_scratch.pictures import (
    SAMPLING,
    Rate,
    check_names,
    draw_suite,
    grid,
    kept_people,
    rates,
)
from mace_exp.concepts.concept import Concept, Kind
from mace_exp.concepts.prompts import (
    anchor_prompt,
    domain_captions,
    prior_captions,
    training_prompts,
)
from mace_exp.data.images.generated import image_seeds
from mace_exp.data.masks.cross_attention import Described, attention_masks
from mace_exp.methods.closed_form import factorize
from mace_exp.methods.mace.attention_loss import AttentionLoss
from mace_exp.methods.mace.lora import Lora, LoraShape, initial_lora
from mace_exp.methods.mace.refinement import transformed_weights
from mace_exp.methods.mace.stacked import unstacked
from mace_exp.methods.mace.step import clip_each, lora_training
from mace_exp.methods.mace.training import ConceptData, draw_batch
from mace_exp.mini.captions import OBJECTS, STYLES
from mace_exp.models.attention import visible_attention
from mace_exp.models.editing import edited_weights
from mace_exp.models.loading import load_pipeline
from mace_exp.models.projections import projection_weights
from mace_exp.models.sampling import sample_with_latents
from mace_exp.models.text import PromptEncoder, stable_diffusion_encoder
from mace_exp.models.tokens import paired_positions
from mace_exp.preservation.statistics import gram
from mace_exp.utils.files import save_png
from mace_exp.utils.seeding import generator
from mace_exp.utils.tensors import save_tensors

NAMES = ("Adam Driver", "Amy Adams")
SEED, PROMPTS, IMAGES, CAPTIONS = 0, 30, 8, 1000
CLOSENESS, PRIOR, DOMAIN = 0.1, 300.0, 300.0  # ridge weight; the others in prompts
SHAPE, LEARNING_RATE, STEPS, BATCH = LoraShape(rank=4, alpha=4), 1e-3, 50, 4


def erase(
    pipeline: DiffusionPipeline,
    concepts: Sequence[Concept],
    *,
    steps: int = STEPS,
    images: int = IMAGES,
    captions: int = CAPTIONS,
) -> dict[str, Tensor]:
    """Return W* of every projection by parameter name; the pipeline is not changed."""
    encoder, W = stable_diffusion_encoder(pipeline), projection_weights(pipeline.unet)
    prompts = {concept: training_prompts(concept, PROMPTS) for concept in concepts}
    data = [training_data(pipeline, concept, prompts[concept][:images]) for concept in concepts]
    R = preserved(encoder, concepts, captions)
    T = refine(encoder, prompts, R)  # section 4.1
    loras = train(pipeline, data, transformed_weights(W, T), steps)  # section 4.2
    S = [second_moment(encoder, prompts[concept]) for concept in concepts]
    return fuse(W, T, loras, S, R)  # section 4.3


def training_data(pipeline: DiffusionPipeline, concept: Concept, f: Sequence[str]) -> ConceptData:
    """Draw an image of each prompt with the model; the masks come from its attention."""
    encoder = stable_diffusion_encoder(pipeline)
    drawn = sample_with_latents(pipeline, f, image_seeds(SEED, concept.slug, len(f)), SAMPLING)
    g = [anchor_prompt(prompt, concept) for prompt in f]
    (height, width), seen = drawn.images.shape[1:3], Described(drawn.latents, f, g, concept.name)
    masks = torch.from_numpy(attention_masks(pipeline, seen, (height, width), seed=SEED).masks)
    # Train against attention from the mask to the concept's tokens, end-of-text and padding.
    tokens = [encoder.positions(prompt, concept.name, include_end=True) for prompt in f]
    states = encoder.encode(f)
    return ConceptData(concept.slug, drawn.latents, states, torch.stack(tokens), masks)


def preserved(encoder: PromptEncoder, concepts: Sequence[Concept], captions: int) -> Tensor:
    """Return R = prior P + domain D: general captions, and captions of the retained people."""
    names = [concept.name for concept in concepts]
    general = prior_captions(OBJECTS, STYLES, captions, avoid=names)
    neighbours = domain_captions(kept_people(), (), captions, avoid=names)
    P = second_moment(encoder, general) / len(general)
    D = second_moment(encoder, neighbours) / len(neighbours)
    return PRIOR * P + DOMAIN * D


def second_moment(encoder: PromptEncoder, prompts: Sequence[str]) -> Tensor:
    """Return S = sum e e^T over all tokens of all prompts, float64."""
    return torch.stack([gram(e) for e in encoder.stream(prompts)]).sum(dim=0)


def refine(encoder: PromptEncoder, prompts: Mapping[Concept, Sequence[str]], R: Tensor) -> Tensor:
    """Section 4.1: map the words around a concept to their states around its anchor.

        min_W' sum ||W' e_f - W e_g||^2 + closeness ||W' - W||^2 + tr (W' - W) R (W' - W)^T

    Every target is W times a vector, so W' = W T, with one T [d, d] for all projections.
    """
    S_gf, S_ff = torch.zeros(2, encoder.width, encoder.width, dtype=torch.float64)
    for concept, f in prompts.items():
        g = [anchor_prompt(prompt, concept) for prompt in f]
        ids = zip(encoder.token_ids(f).tolist(), encoder.token_ids(g).tolist(), strict=True)
        states = zip(encoder.encode(f).double(), encoder.encode(g).double(), strict=True)
        for (ids_f, ids_g), (e_f, e_g) in zip(ids, states, strict=True):
            same_f, same_g = paired_positions(ids_f, ids_g, encoder.tokenizer.eos_token_id)
            S_gf += e_g[same_g].mT @ e_f[same_f]
            S_ff += e_f[same_f].mT @ e_f[same_f]
    M = factorize(S_ff, CLOSENESS, R)  # S_ff + closeness I + R
    return torch.eye(encoder.width, dtype=torch.float64) + M.solve_right(S_gf - S_ff)


def train(
    pipeline: DiffusionPipeline,
    data: Sequence[ConceptData],
    refined: Mapping[str, Tensor],
    steps: int,
) -> list[Lora]:
    """Section 4.2: on frozen W', train one LoRA B_c A_c per concept against its attention.

    loss_c = sum over layers of || attention [heads, positions in the mask, concept's tokens] ||_F
    """
    unet, alpha_bar = pipeline.unet, pipeline.scheduler.alphas_cumprod
    p = focal_density(len(alpha_bar))
    start = [initial_lora(unet, SHAPE, SEED, each.slug) for each in data]
    sources = [generator(SEED, "lora", each.slug, "steps") for each in data]
    with edited_weights(unet, refined), lora_training(unet, start) as modules:
        factors = [factor for each in modules.values() for factor in (each.down, each.up)]
        optimizer = torch.optim.AdamW(factors, lr=LEARNING_RATE)
        for _ in range(steps):
            # Images and masks of every concept, t ~ p, noise ~ N(0, I); one forward pass for all.
            pairs = zip(data, sources, strict=True)
            batches = [draw_batch(each, BATCH, p, source) for each, source in pairs]
            x_0 = torch.cat([batch.latents for batch in batches])
            noise = torch.cat([batch.noise for batch in batches])
            t = torch.cat([batch.timesteps for batch in batches])
            e = torch.cat([batch.states for batch in batches])
            a_t = alpha_bar[t][:, None, None, None]
            x_t = a_t.sqrt() * x_0 + (1 - a_t).sqrt() * noise
            loss = AttentionLoss([batch.target for batch in batches], (x_t.shape[2], x_t.shape[3]))
            with visible_attention(unet, loss):
                unet(x_t, t, e)
            optimizer.zero_grad()
            loss.total().sum().backward()
            clip_each(factors, max_norm=1.0)  # per concept: as if each were trained alone
            optimizer.step()
        return unstacked(modules, SHAPE)


def focal_density(timesteps: int, k: float = 0.05, t1: float = 200, t2: float = 400) -> Tensor:
    """Return p(t), [timesteps]: the subject of an image forms between t1 and t2 (section 4.2)."""
    t = torch.arange(timesteps, dtype=torch.float64) * (1000 / timesteps)
    p = torch.sigmoid(k * (t - t1)) - torch.sigmoid(k * (t - t2))
    return p / p.sum()


def fuse(
    weights: Mapping[str, Tensor], T: Tensor, loras: Sequence[Lora], S: Sequence[Tensor], R: Tensor
) -> dict[str, Tensor]:
    """Section 4.3: one weight that acts like each LoRA on the prompts of its concept, `S`.

    min_W* sum_c sum_e ||W* e - (W' + B_c A_c) e||^2 + closeness ||W* - W'||^2
           + tr (W* - W) R (W* - W)^T

    W* = [ W' sum_c S_c + sum_c B_c A_c S_c + closeness W' + W R ] M^-1
    """
    M = factorize(torch.stack(list(S)).sum(dim=0), CLOSENESS, R)  # sum_c S_c + closeness I + R
    fused = {}
    for name, weight in weights.items():
        W, path = weight.double(), name.removesuffix(".weight")
        W_refined = W @ T
        numerator = CLOSENESS * W_refined + W @ R
        for S_c, lora in zip(S, loras, strict=True):
            numerator += (W_refined + lora.change(path).double()) @ S_c
        fused[name] = M.solve_right(numerator).to(weight.dtype)
    return fused


def run(
    names: Sequence[str] = NAMES,
    *,
    steps: int = STEPS,
    images: int = IMAGES,
    captions: int = CAPTIONS,
    pictures: int = 20,
    folder: Path = Path("outputs/from_scratch"),
) -> dict[str, Rate]:
    """Erase people from the embedded model; draw `pictures` images of each before and after.

    Writes the fused weights and a grid of images to `folder`; returns how often the judge
    recognises each person, and the retained people.

    Raises:
        ValueError: a name that is not one of the model's 200 people.
    """
    check_names(names)
    pipeline = load_pipeline(None, device="cpu")
    concepts = [Concept(name, Kind.person, "a person") for name in names]
    edit = erase(pipeline, concepts, steps=steps, images=images, captions=captions)
    before = draw_suite(pipeline, names, pictures)
    with edited_weights(pipeline.unet, edit):
        after = draw_suite(pipeline, names, pictures)
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / "edit.safetensors", edit)
    save_png(folder / "grid.png", grid(before, after))
    return rates(before, after)


def main() -> None:
    """Erase the people named on the command line, and print how often they are recognised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES)
    for person, rate in run(parser.parse_args().names).items():
        print(f"{person:20} {rate.before:3} of {rate.count} before, {rate.after:3} after")


if __name__ == "__main__":
    main()
