"""Addresses in place of a model's folder or hub id are told how to write them."""

import pytest

from mace_exp.models.auxiliary import check_auxiliary
from mace_exp.models.sources import find_model


@pytest.mark.parametrize(
    ("source", "said"),
    [
        *(
            (f"{site}org/name{end}", "give the hub id org/name$")
            for site in (
                "https://huggingface.co/",
                "hf.co/",
                "hf://",
                "https://huggingface.co/models/",
            )
            for end in ("", "/", "/tree/main", "?library=diffusers")
        ),
        ("https://huggingface.co/org/name/tree/fp16", "hf download org/name --revision fp16 "),
        ("org/name@fp16", "hf download org/name --revision fp16 "),
        ("org/name/", "give the hub id org/name$"),
        ("models--org--a-b", "give the hub id org/a-b$"),
        (
            "https://huggingface.co/o/n/resolve/main/x.safetensors?download=true",
            r"hf download o/n x\.safetensors --local-dir DIR\), and give DIR/x\.safetensors$",
        ),
        ("https://civitai.com/models/4201", "an address of the network"),
        ("file:///data/my%20model", "give the path /data/my model$"),
        (" org/name ", "white space around it: give org/name$"),
        ("a/b/c", "does not exist: give 'mini', a diffusers folder"),
    ],
)
def test_addresses_of_models_are_told_how_to_write_them(source: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        find_model(source)
    with pytest.raises(ValueError, match=said if "exist" not in said else "neither a folder nor"):
        check_auxiliary(source)
