"""Certified training: losses from bounds that can be differentiated, for any torch loop.

A loss takes a graph whose parameters carry gradients (of a module: `provenn.models.live_graph`), boxes and labels:

    outputs, graph = live(images)
    robust = ibp(graph, around(images, radius(step), (0, 1)), labels)
    loss = torch.lerp(robust.loss, cross_entropy(outputs, labels), kappa(step))

What is trained so is certified as any network is: nothing here is part of a proof.
"""

from provenn.verifier.training.boxes import around, ascend, small_boxes
from provenn.verifier.training.initialisation import initialise
from provenn.verifier.training.losses import Bounded, crown_ibp, ibp
from provenn.verifier.training.regulariser import regulariser
from provenn.verifier.training.schedules import Linear, Smoothed

__all__ = [
    "Bounded",
    "Linear",
    "Smoothed",
    "around",
    "ascend",
    "crown_ibp",
    "ibp",
    "initialise",
    "regulariser",
    "small_boxes",
]
