"""Keys of `method=gates`."""

from dataclasses import dataclass
from typing import Annotated

from mace_exp.utils.ranges import NONNEGATIVE, POSITIVE


@dataclass(kw_only=True)
class GateSettings:
    """How gates are fitted."""

    inner_tokens: bool  # also the tokens of a name before its last
    rank: Annotated[int, NONNEGATIVE]  # of the map by which the change follows the sentence
    random_names: Annotated[int, NONNEGATIVE]  # made-up names that no gate may open for
    sharpness: Annotated[float, POSITIVE]  # of the ramp, in units of the encoder's activation
