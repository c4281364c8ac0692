"""What jobs about tightness say over the wire."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from provenn.api.wire import Label, Number, Range, Request, Response

LARGEST = 100_000
"""Inputs of one job, at most."""


class TightnessRequest(Request):
    """How much of the network's interval bounds is the network's: measured at inputs, nothing is proved."""

    inputs: list[list[Number]] = Field(min_length=1, max_length=LARGEST, description="each input flat, in C order")
    labels: list[Label] | None = Field(
        None, description="of each input: margins to the other classes are measured; null: the outputs themselves"
    )
    epsilon: Annotated[Number, Field(gt=0)] = Field(
        0.1, description="radius of the boxes; without clip it does not matter"
    )
    clip: Range | None = Field(None, description="range every input coordinate stays in, e.g. [0, 1]")
    layers: bool = Field(True, description="of every layer, too, at the cost of a pass an input coordinate")

    @model_validator(mode="after")
    def _one_label_an_input(self) -> Self:
        if self.labels is not None and len(self.labels) != len(self.inputs):
            raise ValueError(f"{len(self.inputs)} inputs but {len(self.labels)} labels")
        return self


class LayerTightness(Response):
    """Of the network cut behind one layer that adds up."""

    name: str
    op: str
    tightness: float = Field(description="mean over its cells and all inputs")


class Tightness(Response):
    """The radius of the box that the active linear map needs, over that of layer-by-layer intervals: 1 is exact."""

    tightness: float = Field(description="mean over outputs and inputs")
    outputs: list[list[float]] = Field(description="a list an input: a number an output, or with labels a rival")
    layers: list[LayerTightness]
