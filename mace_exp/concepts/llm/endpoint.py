"""A language model behind an OpenAI-compatible endpoint; the only module that uses `openai`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from mace_exp.concepts.llm.answers import Ask, whole_lines

RETRIES = 2
"""How often a request is repeated after a timeout, an overload or a server error."""
_MISSING = "prompts.base_url needs the package openai: pip install 'mace-exp[llm]'"


def endpoint_problems(base_url: str, key_env: str | None) -> Iterator[str]:
    """Yield a message for each setting that would prevent a request to the endpoint."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        yield (
            f"prompts.base_url = {base_url} is not an address: give one such as http://localhost:8000/v1"
        )
    elif parts.username or parts.password:
        yield "prompts.base_url holds a user or password: put the key into an environment variable"
    if key_env is not None and not os.environ.get(key_env):
        yield (
            f"prompts.key_env = {key_env}: there is no such variable in the environment. Export "
            "the key, or give prompts.key_env=null if the endpoint needs none"
        )
    if find_spec("openai") is None:
        yield _MISSING


def open_endpoint(
    base_url: str,
    model: str,
    *,
    key: str | None,
    timeout: float,
    temperature: float | None = None,
) -> Ask:
    """Return a function that asks `model`; without `temperature` the endpoint's default applies.

    The function raises ValueError, with a remedy, where the endpoint can't be reached, times out
    (`timeout` seconds, three times), refuses, or returns something other than a completion.

    Raises:
        ValueError: the package is not installed.
    """
    try:
        import openai
    except ImportError as error:
        raise ValueError(_MISSING) from error
    client = openai.OpenAI(
        base_url=base_url, api_key=key or "none", timeout=timeout, max_retries=RETRIES
    )
    complete: Any = client.chat.completions.create
    options = {} if temperature is None else {"temperature": temperature}

    def ask(instruction: str) -> str:
        message: Any = {"role": "user", "content": instruction}
        with _explained(base_url, model, timeout):
            return _text(complete(model=model, messages=[message], **options))

    return ask


@contextmanager
def _explained(base_url: str, model: str, timeout: float) -> Iterator[None]:
    """Convert the errors of a request to ValueError, with a remedy."""
    import openai

    try:
        yield
    except openai.APITimeoutError as error:
        raise ValueError(
            f"prompts.timeout = {timeout:g} seconds passed {RETRIES + 1} times without an "
            f"answer from {model} at {base_url}: raise it, or lower prompts.count"
        ) from error
    except openai.APIConnectionError as error:
        raise ValueError(
            f"prompts.base_url = {base_url} can't be reached ({error.__cause__ or error}): is "
            "the server running, and is the address right?"
        ) from error
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        raise ValueError(
            f"{base_url} refuses the key ({error.status_code}): is the variable that "
            "prompts.key_env names set to the right key for this endpoint?"
        ) from error
    except openai.APIStatusError as error:
        raise ValueError(_refusal(base_url, model, error.status_code, error.message)) from error
    except (openai.OpenAIError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"prompts.base_url = {base_url} does not answer as a chat-completions endpoint "
            f"({type(error).__name__}: {error}): such an address usually ends in /v1"
        ) from error


def _text(answer: Any) -> str:
    """Return the text of a completion; empty if it has none (a refusal, a content filter)."""
    if not getattr(answer, "choices", None):
        raise ValueError(f"no choices in {str(answer)[:80]!r}")
    choice = answer.choices[0]
    text = choice.message.content or ""
    if not isinstance(text, str):
        raise ValueError(f"the content is {type(text).__name__}, not text")
    return whole_lines(text) if choice.finish_reason == "length" else text


def _refusal(base_url: str, model: str, status: int, message: str) -> str:
    hint = {
        404: f"does it know prompts.model = {model}, and does its address end in /v1?",
        429: "its rate limit is reached: wait, or use another endpoint",
    }
    return f"{base_url} answers {status}: {message[:200]}" + (
        f": {hint[status]}" if status in hint else ""
    )
