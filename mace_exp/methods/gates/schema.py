"""Keys of `method=gates`."""

from dataclasses import dataclass
from typing import Annotated

from mace_exp.utils.ranges import NONNEGATIVE, POSITIVE


@dataclass(kw_only=True)
class GateSettings:
    """How gates are fitted."""

    inner_tokens: bool  # also gate the tokens of a name before its last
    rank: Annotated[int, NONNEGATIVE]  # of the state-dependent part of the change; 0: none
    random_names: Annotated[int, NONNEGATIVE]  # made-up names that no gate may open for
    sharpness: Annotated[float, POSITIVE]  # slope of the ramp, in inputs of the activation
    compensation_images: Annotated[
        int, NONNEGATIVE
    ]  # of the anchor, for tokens without gates; 0: none
