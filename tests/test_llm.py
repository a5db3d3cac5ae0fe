"""Sentences of a language model: what is taken of its answers, endpoints, local models."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mace_exp.concepts.concept import Concept, Kind
from mace_exp.concepts.llm.answers import Collected, collect, sentences_of, whole_lines
from mace_exp.concepts.llm.endpoint import open_endpoint
from mace_exp.concepts.llm.instructions import instruction
from mace_exp.concepts.llm.local import open_local
from mace_exp.concepts.prompts import (
    EVALUATION_TEMPLATES,
    evaluation_prompts,
    mentions,
    training_prompts,
)
from tests.chat_server import Reply, chat_server
from tests.composing import composed
from tests.tiny import tiny_tokenizer

CAT = Concept("cat", Kind.object, "sky")
GOOD = ("a cat on a red roof", "a sketch of a cat in the rain", "a cat asleep on warm stones")
CPU = torch.device("cpu")


def collected(*answers: str, count: int = 3, attempts: int = 2) -> tuple[Collected, list[str]]:
    """Collect from a model that gives these answers and then empty ones; and what it was asked."""
    asked: list[str] = []

    def ask(text: str) -> str:
        asked.append(text)
        return answers[len(asked) - 1] if len(asked) <= len(answers) else ""

    return collect(CAT, count, ask, fits=lambda each: len(each) < 60, attempts=attempts), asked


@pytest.mark.parametrize("kind", [Kind.person, Kind.object, Kind.style, Kind.explicit])
def test_each_kind_has_an_instruction_of_its_own(kind: Kind) -> None:
    text = instruction(Concept("Some Name", kind, "art"), 7)
    assert "Write 7 " in text and '"Some Name"' in text
    others = {instruction(Concept("Some Name", each, "art"), 7) for each in Kind}
    assert len(others) == 4


@pytest.mark.parametrize(
    "answer",
    [
        "\n".join(GOOD),
        "\n\n".join(f"{i}. {each}." for i, each in enumerate(GOOD, 1)),
        "\n".join(f"  ({i}) {each}" for i, each in enumerate(GOOD, 1)),
        "\n".join(f'- "{each}"' for each in GOOD),
        "\n".join(f"* **{each}**" for each in GOOD),
        '```json\n["' + '",\n "'.join(GOOD) + '"]\n```',
        '{"lines": ["' + '", "'.join(GOOD) + '"]}',
        "<think>a cat,\nsomewhere</think>\n" + "\n".join(GOOD),
        "a cat,\nsomewhere</think>\n" + "\n".join(GOOD),
        "\n".join(GOOD) + "\n<think>a cat somewhere",
    ],
)
def test_marks_around_sentences_are_taken_off(answer: str) -> None:
    assert sentences_of(answer) == list(GOOD)


def test_a_line_that_was_cut_is_dropped() -> None:
    assert whole_lines("one\ntwo\nthr") == "one\ntwo" and whole_lines("cut") == ""


def test_good_answers_are_taken_as_they_are() -> None:
    made, asked = collected("\n".join(GOOD))
    assert made == Collected(list(GOOD), 0, {}) and len(asked) == 1
    more, _ = collected("\n".join(GOOD), count=2)
    assert more.sentences == list(GOOD[:2])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a dog on a roof", "without the name"),
        ("a cat beside a cat", "with it twice"),
        ("concatenated cats", "without the name"),
        ("Sure, a cat it is", "no description"),
        ("Here are three pictures of a cat:", "no description"),
        ("I can't draw a cat", "no description"),
        ("A Cat on a red roof!", "repeated"),
        ("a cat " + "on and on " * 9, "too long"),
        (evaluation_prompts("cat", Kind.object, 1)[0].upper(), "kept for the evaluation"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_and_counted(line: str, reason: str) -> None:
    made, _ = collected(f"{GOOD[0]}\n{line}", attempts=1)
    assert made.sentences[0] == GOOD[0] and line not in made.sentences
    assert [reason in each for each in made.refused] == [True] and made.templates == 2


def test_what_is_missing_is_asked_for_again_and_then_taken_from_templates() -> None:
    made, asked = collected(GOOD[0], "", f"{GOOD[1]}\n{GOOD[0]}", count=6, attempts=3)
    assert len(asked) == 3 and made.templates == 4
    assert "Write 6 " in asked[0] and "Write 5 " in asked[1] and GOOD[0] in asked[1]
    assert made.sentences == [*GOOD[:2], *training_prompts(CAT, 4)]
    assert made.refused == {"repeated": 1}


def test_a_name_that_ends_with_a_dot_keeps_it() -> None:
    downey = Concept("Robert Downey Jr.", Kind.person, "a person")
    lines = ["a sketch of Robert Downey Jr.", "Robert Downey Jr. asleep."]
    made = collect(downey, 2, lambda text: "\n".join(lines), fits=lambda each: True, attempts=1)
    assert made.sentences == [lines[0], "Robert Downey Jr. asleep"]


def test_all_templates_can_be_needed_and_none_is_taken_twice() -> None:
    own = training_prompts(CAT, 128)
    made, _ = collected(own[5], count=128, attempts=1)
    assert made.templates == 127 and sorted(made.sentences) == sorted(own)
    assert all(mentions(each, CAT) == 1 for each in made.sentences)
    measured = set(evaluation_prompts("cat", Kind.object, len(EVALUATION_TEMPLATES)))
    assert not measured & set(made.sentences)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_an_endpoint_is_asked_with_its_model_and_key() -> None:
    with chat_server(Reply("a cat")) as chat:
        ask = open_endpoint(chat.base_url, "tiny", key="secret", timeout=30, temperature=0.5)
        assert ask("write") == "a cat"
    assert chat.keys == ["Bearer secret"]
    assert chat.requests[0]["model"] == "tiny" and chat.requests[0]["temperature"] == 0.5
    assert chat.requests[0]["messages"] == [{"role": "user", "content": "write"}]


def test_empty_and_cut_answers_are_texts() -> None:
    cut = Reply("a cat on a roof\na cat in", finish="length")
    with chat_server(Reply(None), Reply(""), cut) as chat:
        ask = open_endpoint(chat.base_url, "tiny", key=None, timeout=30)
        assert [ask("write") for _ in range(3)] == ["", "", "a cat on a roof"]
    assert "temperature" not in chat.requests[0]


def test_a_server_that_stumbles_is_asked_again() -> None:
    with chat_server(Reply(body="{}", status=503), Reply("a cat")) as chat:
        assert open_endpoint(chat.base_url, "tiny", key=None, timeout=30)("write") == "a cat"
    assert len(chat.requests) == 2


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(body="<html>hello</html>", kind="text/html"), "as a chat-completions endpoint"),
        (Reply(body="{not json"), "as a chat-completions endpoint"),
        (Reply(body='{"object": "error"}'), "as a chat-completions endpoint .*no choices"),
        (Reply(body='{"choices": []}'), "no choices"),
        (Reply(body='{"error": {"message": "secret"}}', status=401), r"refuses the key \(401\)"),
        (Reply(body="{}", status=404), "does it know prompts.model = tiny"),
        (Reply(body='{"error": {"message": "slow down"}}', status=429), "429: .*slow down.*limit"),
        (Reply(body="{}", status=500), "answers 500"),
        (Reply("a cat", seconds=2), "prompts.timeout = 0.2 seconds passed 3 times"),
    ],
)
def test_wrong_answers_say_what_to_do(reply: Reply, message: str) -> None:
    with chat_server(reply) as chat:
        ask = open_endpoint(
            chat.base_url, "tiny", key="secret", timeout=0.2 if reply.seconds else 30
        )
        with pytest.raises(ValueError, match=message) as error:
            ask("write")
    assert "secret" not in str(error.value)


def test_an_endpoint_that_is_not_there_is_named() -> None:
    with chat_server() as chat:
        gone = chat.base_url
    with pytest.raises(ValueError, match=f"prompts.base_url = {gone} can't be reached"):
        open_endpoint(gone, "tiny", key=None, timeout=5)("write")


def test_without_the_package_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ValueError, match=r"pip install 'mace-exp\[llm\]'"):
        open_endpoint("http://127.0.0.1/v1", "tiny", key=None, timeout=5)
    monkeypatch.setattr("mace_exp.concepts.llm.endpoint.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'mace-exp\[llm\]'"):
        composed("prompts=llm", "prompts.base_url=http://x/v1", "prompts.model=y")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "prompts.base_url = None and prompts.folder = None: give one"),
        (["prompts.base_url=http://x/v1", "prompts.folder=/y"], "give one of them"),
        (["prompts.base_url=http://x/v1"], "prompts.model = None"),
        (["prompts.folder=/y", "prompts.model=z"], "prompts.model = z"),
        (["prompts.folder=/nowhere"], "prompts.folder = /nowhere"),
        (["prompts.base_url=x/v1", "prompts.model=y"], "prompts.base_url = x/v1"),
        (["prompts.base_url='http://a:b@x/v1'", "prompts.model=y"], "holds a user or password"),
        (
            ["prompts.base_url=http://x/v1", "prompts.model=y", "prompts.key_env=NO_SUCH_KEY"],
            "no such variable in the environment",
        ),
        (["prompts.folder=/y", "prompts.timeout=0"], "prompts.timeout = 0 is out of range"),
        (["prompts.folder=/y", "prompts.count=129"], "at most 128"),
    ],
)
def test_wrong_settings_are_refused_before_the_run(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        composed("prompts=llm", *overrides)


def save_language_model(folder: Path, *, chat: bool = False, context: int = 4096) -> Path:
    """Write a tiny random text-generation model: what it says is garbage."""
    tokenizer: Any = tiny_tokenizer(context_length=context)
    if chat:
        tokenizer.chat_template = "{% for each in messages %}{{ each['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=context,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        )
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_language_model(tmp_path_factory.mktemp("llm") / "model")


def local(folder: Path, *, most_tokens: int = 30, **more: Any) -> Callable[[str], str]:
    settings: dict[str, Any] = {"device": CPU, "seed": 0, "timeout": 60}
    return partial(open_local(folder, **settings | more), most_tokens=most_tokens)


def test_a_local_model_answers_by_its_seed(
    language_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mace_exp.concepts.llm.local.whole_lines", lambda text: text)
    before = torch.random.get_rng_state()
    ask = local(language_model)
    first, again = ask("a cat"), ask("a cat")
    assert first and first != again, "asked again, it says something else"
    assert local(language_model)("a cat") == first
    assert local(language_model, seed=1)("a cat") != first
    assert torch.equal(torch.random.get_rng_state(), before)
    coldest = local(language_model, temperature=0.0)
    assert coldest("a cat") == coldest("a cat")


def test_a_slow_local_model_is_cut_short(language_model: Path) -> None:
    assert local(language_model, timeout=1e-6, most_tokens=10**6)("a cat") == ""


def test_a_model_that_was_taught_chats_is_asked_by_its_template(tmp_path: Path) -> None:
    ask = local(save_language_model(tmp_path / "chat", chat=True))
    assert isinstance(ask("a cat"), str)


def test_a_model_that_cannot_read_the_instruction_is_refused(tmp_path: Path) -> None:
    ask = local(save_language_model(tmp_path / "short", context=20))
    with pytest.raises(ValueError, match="reads 20 tokens, the instruction has"):
        ask(instruction(CAT, 3))


def test_the_garbage_of_a_random_model_becomes_templates(language_model: Path) -> None:
    ask = local(language_model, most_tokens=100)
    made = collect(CAT, 3, ask, fits=lambda each: True, attempts=2)
    assert made.sentences == training_prompts(CAT, 3) and made.templates == 3


def test_a_folder_without_a_language_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="can't be loaded as a text-generation model"):
        local(tmp_path)
