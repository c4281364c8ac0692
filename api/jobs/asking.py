"""What the server has to know of its methods before it queues a job: asked in a child, which has them loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from provenn.api.jobs.child import Reporter
from provenn.api.schemas import LipschitzRequest
from provenn.api.tightness_schemas import TightnessRequest
from provenn.verifier.errors import BackendError


@dataclass(frozen=True)
class ListBackends:
    """What is there."""

    def run(self, reporter: Reporter) -> dict[str, Any]:
        """`backends`: of each the fields of `BackendInfo`."""
        from provenn.solvers.portfolio import described

        return {"backends": described()}


@dataclass(frozen=True)
class CheckLipschitz:
    """Whether a question about a Lipschitz constant, JSON, fits its method and a network of these sizes."""

    request: str
    method: str
    inputs: int
    outputs: int

    def run(self, reporter: Reporter) -> dict[str, Any]:
        """Nothing.   Raises: BackendError, InvalidSpecification, ResourceLimit."""
        from provenn.api.jobs.worker import question
        from provenn.api.lipschitz import Options
        from provenn.api.lipschitz_jacobian import METHODS

        asked = LipschitzRequest.model_validate_json(self.request)
        Options(self.method, asked.solver)
        about = question(asked)
        about.statement(self.inputs, self.outputs)
        if asked.norm == "1" and about.outward in ("1", "2") and self.method not in ("auto", *METHODS):
            raise BackendError(self.method, f"it has no bound from l1 to l{about.outward}: take auto or crown")
        return {}


@dataclass(frozen=True)
class CheckTightness:
    """Whether a question about tightness, JSON, fits a network of these sizes."""

    request: str
    inputs: int
    outputs: int

    def run(self, reporter: Reporter) -> dict[str, Any]:
        """Nothing.   Raises: InvalidSpecification, ResourceLimit."""
        from provenn.api.jobs import measuring

        measuring.require_valid(TightnessRequest.model_validate_json(self.request), self.inputs, self.outputs)
        return {}
