"""Numbers of a specification, exactly: decimals, rationals and hexadecimal floats to and from fractions."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from provenn.verifier.errors import InvalidSpecification

DIGITS, EXPONENT = 400, 350
"""Longest number that is read, and largest decimal exponent: beyond them exact arithmetic takes for ever."""

MAGNITUDE = 1000
"""Numbers stay below 2^1000, so that sums of two and their float64 images exist."""

_DECIMAL = re.compile(r"([+-]?)(?=\.?[0-9])([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]+))?", re.ASCII)
_RATIONAL = re.compile(r"(-?[0-9]+)/([0-9]+)", re.ASCII)
_HEXADECIMAL = re.compile(r"(-?)0x([01])(?:\.([0-9a-f]{0,13}))?p([+-]?[0-9]{1,4})", re.ASCII)


def exact(text: str, line: int | None = None) -> Fraction:
    """The value of "0.03", "1e-3", "1/255" or "0x1.8p-3" (at most 53 bits, as `float.hex` writes it).

    Raises: InvalidSpecification for anything else (nan and infinity included), naming the line where one is given.
    """
    try:
        return _exact(text)
    except InvalidSpecification as error:
        raise InvalidSpecification(str(error), line) from None


def spoken(value: str | float | Fraction) -> Fraction:
    """The number a person meant: a float (of any width) stands for its shortest decimal, so 0.03 is 3/100.

    Raises: InvalidSpecification.
    """
    return value if isinstance(value, Fraction) else exact(str(value))


def written(value: Fraction) -> str:
    """Text that `exact` reads back to this very value: a decimal of at most 20 places, a float, or a quotient."""
    numerator, rest, twos, fives = value.numerator, value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0 and fives <= 20:
        rest, fives = rest // 5, fives + 1
    places = max(twos, fives)
    if rest == 1 and places == 0:
        return str(numerator)
    if rest == 1 and places <= 20:
        digits = str(abs(numerator) * 10**places // value.denominator).rjust(places + 1, "0")
        return f"{'-' if numerator < 0 else ''}{digits[:-places]}.{digits[-places:]}"
    if rest == 1 and fives == 0 and twos <= 1074 and abs(numerator) < 2**53:
        return hexadecimal(float(value))
    return f"{numerator}/{value.denominator}"


def hexadecimal(value: float) -> str:
    """A finite float exactly, without trailing zeros: 0.1875 is 0x1.8p-3."""
    mantissa, exponent = value.hex().split("p")
    return f"{mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa}p{exponent}"


def require_moderate(value: Fraction) -> Fraction:
    """Itself.   Raises: InvalidSpecification if it is about 2^1000 or more in magnitude."""
    if value.numerator.bit_length() - value.denominator.bit_length() >= MAGNITUDE:
        raise InvalidSpecification(f"a number is of the order of 2^{MAGNITUDE} or larger, beyond float64")
    return value


@lru_cache(maxsize=4096)
def _exact(text: str) -> Fraction:
    if match := _HEXADECIMAL.fullmatch(text):
        return _float(match)
    if len(text) <= 2 * DIGITS and (match := _RATIONAL.fullmatch(text)) and max(map(len, match.groups())) <= DIGITS:
        if not match[2].strip("0"):
            raise InvalidSpecification(f"{_shown(text)} divides by zero")
        return require_moderate(Fraction(int(match[1]), int(match[2])))
    return decimal(text)


def _float(match: re.Match[str]) -> Fraction:
    """The value of a hexadecimal float, which float64 holds exactly unless its exponent is extreme."""
    sign, whole, part, exponent = match.groups(default="")
    if abs(int(exponent)) < MAGNITUDE:
        return Fraction(*float.fromhex(match[0]).as_integer_ratio())
    if abs(int(exponent)) > 1074:
        raise InvalidSpecification(f"{_shown(match[0])} is beyond float64")
    return require_moderate(int(f"{sign}{whole}{part}", 16) * Fraction(2) ** (int(exponent) - 4 * len(part)))


@lru_cache(maxsize=4096)
def decimal(text: str) -> Fraction:
    """The value of "0.03" or "1e-3".   Raises: InvalidSpecification for anything else."""
    if len(text) > DIGITS:
        raise InvalidSpecification(f"a number of {len(text)} characters; at most {DIGITS} are read")
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise InvalidSpecification(f"{_shown(text)} is not a number")
    sign, whole, part, exponent = match.groups(default="")
    power = int(exponent or 0)
    if abs(power) > EXPONENT:
        raise InvalidSpecification(f"{_shown(text)} has an exponent beyond {EXPONENT}")
    digits = int(sign + whole + part)
    power -= len(part)
    return require_moderate(Fraction(digits * 10**power) if power >= 0 else Fraction(digits, 10**-power))


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
