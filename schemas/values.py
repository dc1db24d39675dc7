"""Numbers of an event: features and weights as float32 keeps them."""

from __future__ import annotations

import math
import struct

import numpy as np
from numpy.typing import NDArray

from .reasons import InvalidEvent, Reason, shortened

Vector = NDArray[np.float32]

_FLOAT32 = struct.Struct("<f")


def as_features(value: object) -> Vector:
    """Features as finite float32 [F]: from numbers, or from float32 little-endian bytes.

    A number becomes a double first and is rounded to float32 then. Raises InvalidEvent.
    """
    if isinstance(value, bytes):
        if len(value) % 4:
            raise InvalidEvent(
                Reason.WRONG_TYPE, f"features of {len(value)} bytes are not float32 (4 bytes each)"
            )
        vector = np.frombuffer(value, "<f4").astype(np.float32, copy=False)
    else:
        if not _are_numbers(value):
            raise InvalidEvent(Reason.WRONG_TYPE, f"features are one list of numbers, not {shortened(value)}")
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # a signalling NaN is refused below
                vector = np.array(value, np.float64).astype(np.float32)
        except OverflowError:  # an integer beyond the range of a double
            raise _not_finite(value) from None
    if not np.isfinite(vector).all():
        raise _not_finite(value)
    return vector


def as_weight(value: object) -> float:
    """A weight rounded to float32, finite and above 0. Raises InvalidEvent."""
    if type(value) is not float and not _is_number(type(value)):
        raise InvalidEvent(Reason.WRONG_TYPE, f"a weight is a number, not {shortened(value)}")
    try:
        weight: float = _FLOAT32.unpack(_FLOAT32.pack(value))[0]
    except (OverflowError, struct.error):  # beyond the range of float32; an integer beyond that of any float
        weight = math.inf
    if 0 < weight < math.inf:
        return weight
    if not math.isfinite(weight):
        raise InvalidEvent(Reason.NOT_FINITE, f"the weight {shortened(value)} is not finite in float32")
    raise InvalidEvent(
        Reason.BAD_WEIGHT,
        f"the weight {shortened(value)} is not above 0 in float32; remove an edge by RemoveEdge",
    )


def _is_number(kind: type) -> bool:
    return issubclass(kind, int | float | np.integer | np.floating) and kind is not bool


def _are_numbers(value: object) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.dtype.kind in "fiu"
    return isinstance(value, list | tuple) and all(map(_is_number, set(map(type, value))))


def _not_finite(value: object) -> InvalidEvent:
    return InvalidEvent(Reason.NOT_FINITE, f"features {shortened(value)} are not finite in float32")
