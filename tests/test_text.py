"""Token ids, hidden states, positions of phrases, and which positions of two prompts pair up."""

from typing import Any

import pytest
import torch

from mace_exp.models.text import Branch, PromptEncoder, stable_diffusion_encoder
from mace_exp.models.tokens import end_positions, paired_positions, phrase_positions, token_ids
from tests.tiny import tiny_pipeline, tiny_tokenizer

PROMPTS = ["a photo of adam driver in the park", "", "Adam Driver's dog"]


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def spelled(tokenizer, prompt, positions):
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(prompt).input_ids)
    return "".join(tokens[position] for position in positions).replace("</w>", " ").strip()


@pytest.mark.parametrize("pad_token", ["<|endoftext|>", "!"])
def test_hidden_states_are_those_of_the_pipeline(pad_token):
    pipeline = tiny_pipeline(pad_token=pad_token)
    encoder = stable_diffusion_encoder(pipeline)
    expected, _ = pipeline.encode_prompt(PROMPTS, "cpu", 1, False)
    torch.testing.assert_close(encoder.encode(PROMPTS), expected, rtol=0, atol=0)


def test_batches_change_nothing_and_carry_no_gradient(pipeline):
    encoder = stable_diffusion_encoder(pipeline)
    whole = encoder.encode(PROMPTS)
    assert not whole.requires_grad
    torch.testing.assert_close(encoder.encode(PROMPTS, batch_size=1), whole)
    assert whole.shape == (3, encoder.context_length, encoder.width)


def test_streaming_leaves_gradients_of_the_caller_alone(pipeline):
    for _ in stable_diffusion_encoder(pipeline).stream(PROMPTS, batch_size=1):
        assert torch.is_grad_enabled()


def test_two_encoders_stand_side_by_side(pipeline):
    branch = Branch(pipeline.tokenizer, pipeline.text_encoder, layer=-2)
    single, double = PromptEncoder((branch,)), PromptEncoder((branch, branch))
    assert double.width == 2 * single.width
    states = single.encode(PROMPTS)
    torch.testing.assert_close(double.encode(PROMPTS), torch.cat([states, states], dim=-1))
    hidden = pipeline.text_encoder(
        single.token_ids(PROMPTS), output_hidden_states=True
    ).hidden_states
    torch.testing.assert_close(states, hidden[-2])


def test_context_length_is_the_smaller_limit():
    pipeline = tiny_pipeline(context_length=24)
    encoder = stable_diffusion_encoder(pipeline)
    pipeline.tokenizer.model_max_length = 10**30
    assert encoder.context_length == 24
    pipeline.tokenizer.model_max_length = 20
    assert encoder.context_length == 20


def test_a_prompt_that_would_be_cut_is_an_error(tokenizer):
    prompt = "a photo of a cat " * 3
    exact = len(tokenizer(prompt).input_ids)
    assert token_ids(tokenizer, [prompt], exact).shape == (1, exact)
    with pytest.raises(ValueError, match=r"17 tokens.*reads 16: 'a photo of a cat.*'photo</w>'"):
        token_ids(tokenizer, [prompt], exact - 1)


def test_no_prompts_are_an_error(pipeline):
    with pytest.raises(ValueError, match="at least one prompt"):
        stable_diffusion_encoder(pipeline).encode([])


@pytest.mark.parametrize(
    ("prompt", "phrase", "count"),
    [
        ("a photo of adam driver in the park", "adam driver", 1),
        ("a photo of ADAM Driver", "Adam DRIVER", 1),
        ("Adam Driver's dog", "adam driver", 1),
        ("adam driver, and adam driver with adam", "adam driver", 2),
        ("a dog on a dog", "dog", 2),
        ("a cat", "cat", 1),
        ("a  cat\n in snow", " cat ", 1),
        ("(adam driver)", "adam driver", 1),
    ],
)
def test_every_occurrence_is_found(tokenizer, prompt, phrase, count):
    positions = phrase_positions(tokenizer, prompt, phrase)
    once = phrase.strip().lower()
    assert spelled(tokenizer, prompt, positions) == " ".join([once] * count)


@pytest.mark.parametrize(
    ("prompt", "phrase"),
    [("a catalogue", "cat"), ("adam in a driver", "adam driver"), ("a cat", ""), ("", "cat")],
)
def test_a_phrase_that_is_not_there_is_an_error(tokenizer, prompt, phrase):
    with pytest.raises(ValueError, match="does not occur in the prompt") as error:
        phrase_positions(tokenizer, prompt, phrase)
    assert repr(prompt) in str(error.value) and "<|startoftext|>" in str(error.value)


@pytest.mark.parametrize("pad_token", ["<|endoftext|>", "!"])
def test_the_end_is_the_first_end_of_text_and_all_padding(pad_token):
    tokenizer: Any = tiny_tokenizer(pad_token=pad_token, context_length=12)
    ids = token_ids(tokenizer, ["a cat !"], 12)[0].tolist()
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert isinstance(end, int)
    assert end_positions(ids, end) == list(range(4, 12))


def test_positions_hold_the_phrase_and_on_request_the_end(pipeline):
    encoder = stable_diffusion_encoder(pipeline)
    assert encoder.positions("a cat", "cat").nonzero().flatten().tolist() == [2]
    with_end = encoder.positions("a cat", "cat", include_end=True)
    assert with_end.nonzero().flatten().tolist() == list(range(2, encoder.context_length))


def pairs(old, new, length=12, **options):
    """Pair rows of small numbers; 9 ends a row, 0 pads it (as in Stable Diffusion 2.x)."""
    rows = [row + [0] * (length - len(row)) for row in (old, new)]
    return paired_positions(rows[0], rows[1], 9, **options)


def test_prefix_suffix_and_padding_pair_up():
    old, new = pairs([8, 1, 2, 5, 6, 3, 9], [8, 1, 2, 7, 3, 9])
    assert old == [0, 1, 2, 5, 6, 7, 8, 9, 10, 11]
    assert new == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]


def test_pairing_is_symmetric():
    first, second = [8, 1, 5, 6, 3, 9], [8, 1, 7, 3, 9]
    assert pairs(first, second) == pairs(second, first)[::-1]


def test_prefix_and_suffix_do_not_share_a_word():
    old, new = pairs([8, 4, 4, 9], [8, 4, 9], length=6)
    assert old == [0, 1, 3, 4, 5]
    assert new == [0, 1, 2, 3, 4]


def test_equal_prompts_pair_everything():
    everything = list(range(12))
    assert pairs([8, 1, 9], [8, 1, 9]) == (everything, everything)


def test_all_words_pair_every_position():
    everything = list(range(12))
    assert pairs([8, 1, 2, 9], [8, 3, 9], all_words=True) == (everything, everything)


def test_a_full_context_leaves_no_padding_to_pair():
    old, new = pairs([8, 1, 2, 3, 9], [8, 1, 4, 9], length=5)
    assert (old, new) == ([0, 1, 4], [0, 1, 3])


def test_rows_without_end_or_of_two_lengths_are_errors():
    with pytest.raises(ValueError, match="no end-of-text"):
        paired_positions([1, 2], [1, 9], 9)
    with pytest.raises(ValueError, match="one length"):
        paired_positions([1, 9], [9], 9)


def test_texts_that_do_not_fit_into_memory_together_are_encoded_in_smaller_batches(pipeline):
    encoder, sizes = stable_diffusion_encoder(pipeline), []
    expected = encoder.encode(PROMPTS)

    def small(_, inputs):
        sizes.append(len(inputs[0]))
        if sizes[-1] > 1:
            raise MemoryError

    hook = pipeline.text_encoder.register_forward_pre_hook(small)
    try:
        found = encoder.encode(PROMPTS)
    finally:
        hook.remove()
    assert sizes == [3, 1, 1, 1]
    torch.testing.assert_close(found, expected)
