"""z times a gate that goes from 0 to 1: concave, convex around 0, concave again, with one minimum."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import inf

import torch
from torch import Tensor

from provenn.verifier.errors import InvalidModel
from provenn.verifier.interval import Interval
from provenn.verifier.ops.univariate import ULPS, Form, Kink, Univariate


@dataclass(frozen=True)
class Gated(Univariate):
    """z gate(scale z); `scale` is 1 in most networks.   Raises: InvalidModel if it is not positive and finite."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.scale < inf:
            raise InvalidModel(f"{type(self).__name__}: scale {self.scale} must be a positive number")

    def value_error(self, z: Tensor, value: Tensor) -> Tensor:
        """The gate's argument rounds too: where it is negative that is magnified, to 1 / scale ulp at most."""
        floor = z.abs().clamp(max=1 / self.scale)
        return super().value_error(z, value) + floor * (ULPS * torch.finfo(z.dtype).eps)

    def slope_error(self, z: Tensor, slope: Tensor) -> Tensor:
        """Gate and y gate'(y) cancel near the minimum; both fade faster than (y / 8)^-4."""
        fading = 1 / (1 + (self.scale / 8 * z).clamp(-1e8, 1e8) ** 4)
        return super().slope_error(z, slope) + fading * (ULPS * torch.finfo(z.dtype).eps)


@dataclass(frozen=True)
class Gelu(Gated):
    """z Phi(z), Phi the normal distribution: the exact form, with erf."""

    onnx = ("Gelu",)

    def form(self) -> Form:
        """Inflections at +-sqrt(2)."""
        return _gated(math.sqrt(2), math.sqrt(2), -0.7517915246935644575, self.scale)

    def value(self, z: Tensor) -> Tensor:
        """Z erfc(-z / sqrt(2)) / 2, which does not cancel."""
        return 0.5 * z * torch.erfc(z * (-self.scale * math.sqrt(0.5)))

    def slope(self, z: Tensor) -> Tensor:
        """Phi(z) + z phi(z)."""
        y = self.scale * z
        density = torch.exp(-0.5 * (y * y).clamp(max=1e4)) / math.sqrt(2 * math.pi)
        return 0.5 * torch.erfc(y * -math.sqrt(0.5)) + y * density


@dataclass(frozen=True)
class Silu(Gated):
    """z / (1 + exp(-scale z)), also called Swish."""

    onnx = ("Swish",)

    def form(self) -> Form:
        """Inflections where y tanh(y / 2) = 2."""
        return _gated(2.3993572805154676678, 2.3993572805154676678, -1.2784645427610737951, self.scale)

    def value(self, z: Tensor) -> Tensor:
        """Z times the logistic function."""
        return z * torch.sigmoid(self.scale * z)

    def slope(self, z: Tensor) -> Tensor:
        """S(y) (1 + y s(-y))."""
        y = self.scale * z
        return torch.sigmoid(y) * (1 + y * torch.sigmoid(-y))


@dataclass(frozen=True)
class Mish(Gated):
    """z tanh(log(1 + exp(z)))."""

    onnx = ("Mish",)

    def form(self) -> Form:
        """Inflections at roots of its second derivative."""
        return _gated(2.2563763963607931200, 1.4905711794854284595, -1.1924312145154952121, self.scale)

    def value(self, z: Tensor) -> Tensor:
        """Z n / (n + 2) with n = e (e + 2), e = exp(z): no difference in it."""
        e = torch.exp((self.scale * z).clamp(max=30))
        n = e * (e + 2)
        return z * (n / (n + 2))

    def slope(self, z: Tensor) -> Tensor:
        """N / (n + 2) + 4 z e (1 + e) / (n + 2)^2; beyond 30 the second term is 0 in any format."""
        y = (self.scale * z).clamp(max=30)
        e = torch.exp(y)
        n = e * (e + 2)
        return n / (n + 2) + y * (e / (n + 2)) * (4 * (1 + e) / (n + 2))


@dataclass(frozen=True)
class GeluTanh(Gated):
    """z (1 + tanh(rate (z + cubic z^3))) / 2: the approximate form, which is z times a logistic function.

    Raises: InvalidModel unless the constants are, within a thousandth, those of the approximation.
    """

    rate: float = math.sqrt(2 / math.pi)
    cubic: float = 0.044715

    onnx = ("Gelu",)

    def __post_init__(self) -> None:
        if not self.near(self.rate, self.cubic):
            raise InvalidModel(f"Gelu: constants {self.rate}, {self.cubic} are not those of the tanh approximation")
        if self.scale != 1:
            raise InvalidModel("Gelu: the tanh approximation has no scale")

    @staticmethod
    def near(rate: float, cubic: float) -> bool:
        """Whether the constants are those of the approximation up to a thousandth, so that its form is known."""
        return abs(rate / math.sqrt(2 / math.pi) - 1) < 1e-3 and abs(cubic / 0.044715 - 1) < 1e-3

    def form(self) -> Form:
        """Inflections and minimum found to the last bit, for the constants as they are."""
        return _gelu_tanh(self.rate, self.cubic)

    def value(self, z: Tensor) -> Tensor:
        """Z times the logistic function of twice the argument of tanh."""
        return z * torch.sigmoid(2 * self.rate * (z + self.cubic * z**3))

    def slope(self, z: Tensor) -> Tensor:
        """S(w) + z s(w) s(-w) w'; beyond 30 the second term is 0 in any format."""
        y = z.clamp(-30, 30)
        w = 2 * self.rate * (y + self.cubic * y**3)
        steepness = 2 * self.rate * (1 + 3 * self.cubic * y * y)
        return torch.sigmoid(w) * (1 + y * torch.sigmoid(-w) * steepness)


@dataclass(frozen=True)
class HardSwish(Univariate):
    """z min(max(alpha z + beta, 0), 1): 0, a parabola, z.   Raises: InvalidModel unless alpha > 0 and 0 < beta < 1."""

    alpha: float = 1 / 6
    beta: float = 0.5

    onnx = ("HardSwish",)

    def __post_init__(self) -> None:
        if not (0 < self.alpha < inf and 0 < self.beta < 1):
            raise InvalidModel(f"HardSwish: alpha {self.alpha} must be positive, beta {self.beta} between 0 and 1")

    @property
    def ends(self) -> tuple[float, float]:
        """Where the parabola begins and ends."""
        return -self.beta / self.alpha, (1 - self.beta) / self.alpha

    def form(self) -> Form:
        """A parabola between two kinks that bend down."""
        return _hard_swish(self.alpha, self.beta)

    def improvable(self, *inputs: Interval) -> tuple[Tensor | None, ...]:
        """Where the box meets the parabola: elsewhere the function is its own line."""
        lower, upper = inputs[0].lower, inputs[0].upper
        return ((lower < self.ends[1]) & (upper > self.ends[0]) & (lower < upper),)

    def value(self, z: Tensor) -> Tensor:
        """The function."""
        return z * (self.alpha * z + self.beta).clamp(0, 1)

    def slope(self, z: Tensor) -> Tensor:
        """0, 2 alpha z + beta, 1."""
        start, end = self.ends
        return torch.where(z < start, 0.0, torch.where(z > end, 1.0, 2 * self.alpha * z + self.beta))

    def value_error(self, z: Tensor, value: Tensor) -> Tensor:
        """Alpha z + beta cancels near the first kink."""
        floor = z.abs().clamp(max=max(-self.ends[0], self.ends[1]))
        return super().value_error(z, value) + floor * (ULPS * torch.finfo(z.dtype).eps)

    def slope_error(self, z: Tensor, slope: Tensor) -> Tensor:
        """2 alpha z + beta cancels near the minimum."""
        start, end = self.ends
        inside = (z >= 1.001 * start) & (z <= 1.001 * end)
        return super().slope_error(z, slope) + inside.to(z.dtype) * (ULPS * torch.finfo(z.dtype).eps)


@cache
def _gated(left: float, right: float, turn: float, scale: float) -> Form:
    start, end = -left / scale, right / scale
    return Form(convex=((start, end),), concave=((-inf, start), (end, inf)), turns=(turn / scale,))


@cache
def _hard_swish(alpha: float, beta: float) -> Form:
    start, end = -beta / alpha, (1 - beta) / alpha
    kinks = (Kink(start, 0.0, -beta), Kink(end, 2 - beta, 1.0))
    # Unfolded by s, the kinks are [start, start + s] and [end + s, end + 2 s]; they belong to the concave pieces.
    s = 2.0 ** -math.floor(math.log2(alpha))
    convex, pieces = ((start + s, end + s),), ((-inf, start + s), (end + s, inf))
    return Form(convex=convex, concave=pieces, turns=(-beta / (2 * alpha),), kinks=kinks, stretch=s)


@cache
def _gelu_tanh(rate: float, cubic: float) -> Form:
    def slopes(z: float) -> tuple[float, float]:
        """First and second derivative of z s(w(z))."""
        w = 2 * rate * (z + cubic * z**3)
        first, second = 2 * rate * (1 + 3 * cubic * z * z), 12 * rate * cubic * z
        s = 1 / (1 + math.exp(-w))
        q = s * (1 - s)
        return s + z * q * first, 2 * q * first + z * (q * (1 - 2 * s) * first**2 + q * second)

    turn = _root(lambda z: slopes(z)[0], -1.5, 0.0)
    return _gated(-_root(lambda z: slopes(z)[1], -2.0, -1.0), _root(lambda z: slopes(z)[1], 2.0, 1.0), turn, 1.0)


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    """The root between low, where the function is negative, and high, by halving."""
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return high
