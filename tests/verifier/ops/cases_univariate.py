"""Cases of the table: functions of one number."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
import torch
from op_case import Case, OnnxNode, numbers

from provenn.verifier.ops.abs import Abs, PRelu
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.exponential import Cosh, Elu, Exp, Log, Sinh, Softplus
from provenn.verifier.ops.gated import Gelu, GeluTanh, HardSwish, Mish, Silu
from provenn.verifier.ops.periodic import Cos, Sin, Tan
from provenn.verifier.ops.power import Pow, Reciprocal, Sqrt
from provenn.verifier.ops.saturating import Atan, Erf, Softsign
from provenn.verifier.ops.steps import Ceil, Floor, Round, Sign

EVERYWHERE = (-inf, inf)


def case(name: str, op: Op, kind: str = "", domain: tuple[float, float] = EVERYWHERE, **attributes: Any) -> Case:
    return Case(name, op, ((3, 5),), OnnxNode(kind, (None,), attributes) if kind else None, domain)


def power(name: str, exponent: float, domain: tuple[float, float] = EVERYWHERE) -> Case:
    return Case(f"pow-{name}", Pow(exponent), ((3, 5),), OnnxNode("Pow", (None, np.float32(exponent))), domain)


def prelu(name: str, slope: torch.Tensor) -> Case:
    return Case(f"prelu-{name}", PRelu(slope), ((3, 5),), OnnxNode("PRelu", (None, slope)))


UNIVARIATE_CASES = [
    case("abs", Abs(), "Abs"),
    prelu("channel", numbers(3, 1)),
    prelu("each", 2 * numbers(3, 5)),
    case("sign", Sign(), "Sign"),
    case("floor", Floor(), "Floor"),
    case("ceil", Ceil(), "Ceil"),
    case("round", Round(), "Round"),
    case("exp", Exp(), "Exp", (-inf, 20.0)),
    case("log", Log(), "Log", (1e-6, inf)),
    case("softplus", Softplus(), "Softplus"),
    case("softplus-threshold", Softplus(3.0)),
    case("elu", Elu(1.0), "Elu", alpha=1.0),
    case("elu-flat", Elu(0.25), "Elu", alpha=0.25),
    case("elu-steep", Elu(2.5), "Elu", alpha=2.5),
    case("selu", Elu(1.625, 1.0625), "Selu", alpha=1.625, gamma=1.0625),
    case("celu", Elu(2.0, 1.0, 2.0), "Celu", alpha=2.0),
    case("sinh", Sinh(), "Sinh", (-20.0, 20.0)),
    case("cosh", Cosh(), "Cosh", (-20.0, 20.0)),
    case("sqrt", Sqrt(), "Sqrt", (0.0, inf)),
    case("reciprocal", Reciprocal(), "Reciprocal", (1e-3, inf)),
    power("square", 2.0),
    power("cube", 3.0),
    power("fourth", 4.0),
    power("inverse-square", -2.0, (1e-2, inf)),
    power("inverse-cube", -3.0, (1e-2, inf)),
    power("fifth", 0.2, (0.0, inf)),
    power("real", 2.5, (0.0, inf)),
    power("inverse-real", -0.75, (1e-2, inf)),
    case("gelu", Gelu(), "Gelu"),
    case("gelu-scaled", Gelu(1.5)),
    case("gelu-tanh", GeluTanh(), "Gelu", approximate="tanh"),
    case("silu", Silu()),
    case("silu-quick", Silu(1.702)),
    case("mish", Mish(), "Mish"),
    case("hard-swish", HardSwish(), "HardSwish"),
    case("hard-swish-other", HardSwish(0.25, 0.75)),
    case("erf", Erf(), "Erf"),
    case("atan", Atan(), "Atan"),
    case("softsign", Softsign(), "Softsign"),
    case("sin", Sin(), "Sin"),
    case("cos", Cos(), "Cos"),
    case("tan", Tan(), "Tan", (-1.5, 1.5)),
]
