"""Triton functions for sine and cosine: of radians in full precision, of turns by the hardware."""

import triton
import triton.language as tl
from triton.language.extra import libdevice

ROUNDER = tl.constexpr(12582912.0)  # 1.5 * 2^23: adding it leaves no place for a fraction
TURN = tl.constexpr(6.283185307179586)
INVERSE_PI = tl.constexpr(0.31830988618379067)
PI_HIGH = tl.constexpr(3.140625)  # eight bits: exact times any number of half turns below 2^16
PI_MIDDLE = tl.constexpr(0.0009670257568359375)  # eleven bits
PI_LOW = tl.constexpr(6.2783295727e-07)


@triton.jit
def _within_half_turn(x):
    """x less a whole number of half turns, in [-pi / 2, pi / 2], and the sign that leaves."""
    turns = tl.floor(x * INVERSE_PI + 0.5)
    r = ((x - turns * PI_HIGH) - turns * PI_MIDDLE) - turns * PI_LOW
    return r, 1 - 2 * (turns - 2 * tl.floor(0.5 * turns))


@triton.jit
def _without_whole_turns(x):
    """x turns less the nearest whole number of them, as an angle in [-pi, pi]."""
    return (x - ((x + ROUNDER) - ROUNDER)) * TURN


@triton.jit
def _quartic(
    s, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, D: tl.constexpr, E: tl.constexpr
):
    """A s^4 + B s^3 + C s^2 + D s + E."""
    p = A * s + B
    p = (p * s + C) * s + D
    return p * s + E


@triton.jit
def sine(x, FAST: tl.constexpr):
    """Of an angle in radians; if FAST, in turns."""
    if FAST:
        return libdevice.fast_sinf(_without_whole_turns(x))
    r, sign = _within_half_turn(x)
    s = r * r
    p = _quartic(
        s, -2.38466939e-08, 2.75226188e-06, -1.98408040e-04, 8.33333050e-03, -1.66666666e-01
    )
    return sign * (r + r * (s * p))


@triton.jit
def cosine(x, FAST: tl.constexpr):
    """Of an angle in radians; if FAST, in turns."""
    if FAST:
        return libdevice.fast_cosf(_without_whole_turns(x))
    r, sign = _within_half_turn(x)
    s = r * r
    p = _quartic(
        s, 1.99199503e-09, -2.75256608e-07, 2.48010702e-05, -1.38888846e-03, 4.16666665e-02
    )
    p = p * s - 0.5
    return sign * (1 + s * p)
