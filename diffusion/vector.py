"""Loops over the columns of one row as vector code, and prefetching; kernels elsewhere are plain loops.

Rows are short and many. A loop that the compiler makes vectors of spends as much on the way in and out (do the rows
overlap? is there a rest?) as on the row itself. Rows here are whole vectors (LANES), begin on a multiple of one and
never overlap, so these loops, which rely on it, take half the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .arrays import LANES

FLOAT, DOUBLE, I32, I64 = ir.FloatType(), ir.DoubleType(), ir.IntType(32), ir.IntType(64)
BOOL, MASK = ir.IntType(1), ir.IntType(LANES)  # a bit for each lane
VECTOR, WIDE, WORDS = (ir.VectorType(kind, LANES) for kind in (FLOAT, DOUBLE, I32))
FIRSTS = (4 ** (LANES // 2) - 1) // 3  # of every two lanes the first
BYTES = LANES * 4  # of a vector
PAIR = I64(8)  # bytes of two words
LINE = 64  # bytes of a line of the cache
FLAGS = ("nnan", "ninf", "nsz")  # what is not finite was refused at the door; no order of a sum changes


def emitted(generator: Callable[..., Any]) -> Callable[..., Any]:
    """A function of kernels whose machine code is generated; its arguments but the first are those of the function."""
    return cast("Callable[..., Any]", intrinsic(generator))


@emitted
def prefetch(typing: Any, array: Any, u: Any) -> Any:
    """Ask for row u, or for the line of entry u, before it is needed."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder, signature, args)
        size = I64(1) if array.ndim == 1 else code.row_bytes(0)
        begin = code.row(0, 1)
        with cgutils.for_range_slice(builder, I64(0), size, I64(LINE)) as (offset, _):
            line = code.pointer(begin, offset, ir.IntType(8))
            code.call("llvm.prefetch.p0", ir.VoidType(), [line, I32(1), I32(3), I32(1)])
        return context.get_dummy_value()

    return types.void(array, u), generate


@emitted
def largest(typing: Any, array: Any, u: Any) -> Any:
    """max |row u|"""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder, signature, args)
        row = code.row(0, 1)
        return code.largest(lambda at: code.load(row, at))

    return types.float32(array, u), generate


@emitted
def largest_difference(typing: Any, a: Any, b: Any, u: Any) -> Any:
    """max |row u of a − row u of b|"""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder, signature, args)
        one, other = code.row(0, 2), code.row(1, 2)
        return code.largest(lambda at: builder.fsub(code.load(one, at), code.load(other, at), flags=FLAGS))

    return types.float32(a, b, u), generate


@emitted
def add_scaled(typing: Any, array: Any, t: Any, d: Any, c: Any) -> Any:
    """Row t += c·d, d [F']; max |row t|"""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder, signature, args)
        row, step, scale = code.row(0, 1), code.begin(2), code.splat(args[3], VECTOR)

        def add(at: Any) -> Any:
            return code.stored(code.fused(code.load(step, at), scale, code.load(row, at)), row, at)

        return code.largest(add)

    return types.float32(array, t, d, types.float32), generate


@emitted
def take(typing: Any, r: Any, h: Any, u: Any, d: Any, scale: Any, damped: Any) -> Any:
    """H_u += scale·R_u; d = damped·scale·R_u; R_u = 0"""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder, signature, args)
        residual, vector, step = code.row(0, 2), code.row(1, 2), code.begin(3)
        whole, part = code.splat(args[4], VECTOR), code.splat(args[5], VECTOR)
        with code.each_vector() as at:
            moved = builder.fmul(code.load(residual, at), whole, flags=FLAGS)
            code.stored(builder.fadd(code.load(vector, at), moved, flags=FLAGS), vector, at)
            code.stored(builder.fmul(moved, part, flags=FLAGS), step, at)
            code.stored(ir.Constant(VECTOR, [0.0] * LANES), residual, at)
        return context.get_dummy_value()

    return types.void(r, h, u, d, types.float32, types.float32), generate


@emitted
def move_toward(typing: Any, x: Any, h: Any, r: Any, u: Any, v: Any, alpha: Any, theta: Any) -> Any:
    """R_u += θ(ρ_v − R_u) with ρ_v = α(X_u − H_u) + (1−α)(H_v − H_u), in float64; max |R_u|"""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder, signature, args)
        features, vector, residual, other = code.row(0, 3), code.row(1, 3), code.row(2, 3), code.row(1, 4)
        damped = builder.fsub(DOUBLE(1.0), args[5])
        own, rest, share = (code.splat(value, WIDE) for value in (args[5], damped, args[6]))

        def wide(row: Any, at: Any) -> Any:
            return builder.fpext(code.load(row, at), WIDE)

        def move(at: Any) -> Any:
            held, old = wide(vector, at), wide(residual, at)
            rho = builder.fadd(
                builder.fmul(own, builder.fsub(wide(features, at), held)),
                builder.fmul(rest, builder.fsub(wide(other, at), held)),
            )
            new = builder.fadd(old, builder.fmul(share, builder.fsub(rho, old)))
            return code.stored(builder.fptrunc(new, VECTOR), residual, at)

        return code.largest(move)

    return types.float32(x, h, r, u, v, types.float64, types.float64), generate


@emitted
def place_of(typing: Any, pairs: Any, begin: Any, count: Any, first: Any) -> Any:
    """How many pairs of words stand between pair `begin` and one whose first word is this; −1: `count` do not.

    `begin` is a multiple of LANES / 2, and there are so many pairs in memory that a whole vector is read each time.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code = _Code(context, builder, signature, args)
        start = builder.add(code.begin(0), builder.mul(code.number(1), PAIR))
        end = builder.mul(code.number(2), PAIR)
        wanted = code.splat(builder.trunc(code.number(3), I32), WORDS)
        found = cgutils.alloca_once_value(builder, I64(-1))
        vectors = builder.udiv(builder.add(end, I64(BYTES - 1)), I64(BYTES))
        with cgutils.for_range(builder, vectors) as loop:
            offset = builder.mul(loop.index, I64(BYTES))
            same = builder.icmp_signed("==", code.load(start, offset, WORDS), wanted)
            firsts = builder.and_(builder.bitcast(same, MASK), MASK(FIRSTS))
            with builder.if_then(builder.icmp_signed("!=", firsts, MASK(0)), likely=False):
                lane = builder.zext(code.call(f"llvm.cttz.i{LANES}", MASK, [firsts, BOOL(1)]), I64)
                at = builder.add(offset, builder.mul(lane, I64(4)))
                with builder.if_then(builder.icmp_signed("<", at, end)):
                    builder.store(builder.udiv(at, PAIR), found)
                loop.do_break()
        return builder.load(found, typ=I64)

    return types.int64(pairs, begin, count, first), generate


@emitted
def copy_bytes(typing: Any, to: Any, at: Any, source: Any, begin: Any, size: Any) -> Any:
    """to[at : at + size] = source[begin : begin + size]; the two do not overlap"""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        code, byte = _Code(context, builder, signature, args), ir.IntType(8)
        target = code.pointer(code.begin(0), code.number(1), byte)
        origin = code.pointer(code.begin(2), code.number(3), byte)
        cgutils.raw_memcpy(builder, target, origin, code.number(4), 1)
        return context.get_dummy_value()

    return types.void(to, at, source, begin, size), generate


class _Code:
    """Machine code on rows of arrays; arguments of the intrinsic are named by their place."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> None:
        self._context, self._builder, self._types, self._args = context, builder, signature.args, args

    def begin(self, array: int) -> Any:
        """Address of an array."""
        return self._builder.ptrtoint(self._array(array).data, I64)

    def row_bytes(self, array: int) -> Any:
        """From one row to the next."""
        return cgutils.unpack_tuple(self._builder, self._array(array).strides)[0]

    def row(self, array: int, u: int) -> Any:
        """Address of row u of an array."""
        return self._builder.add(self.begin(array), self._builder.mul(self.number(u), self.row_bytes(array)))

    def number(self, place: int) -> Any:
        """An argument that is an integer of any kind."""
        return self._context.cast(self._builder, self._args[place], self._types[place], types.int64)

    def _array(self, place: int) -> Any:
        return self._context.make_array(self._types[place])(
            self._context, self._builder, value=self._args[place]
        )

    @contextmanager
    def each_vector(self) -> Iterator[Any]:
        """A loop over the offsets of the vectors in a row of the first array."""
        with cgutils.for_range_slice(self._builder, I64(0), self.row_bytes(0), I64(BYTES)) as (offset, _):
            yield offset

    def pointer(self, address: Any, offset: Any, kind: Any) -> Any:
        """To what stands there."""
        return self._builder.inttoptr(self._builder.add(address, offset), kind.as_pointer())

    def load(self, row: Any, offset: Any, kind: Any = VECTOR) -> Any:
        """One vector."""
        value = self._builder.load(self.pointer(row, offset, kind), typ=kind)
        value.align = BYTES
        return value

    def stored(self, value: Any, row: Any, offset: Any) -> Any:
        """The vector that it stores."""
        self._builder.store(value, self.pointer(row, offset, VECTOR)).align = BYTES
        return value

    def splat(self, value: Any, kind: Any) -> Any:
        """One number in all lanes."""
        nothing = ir.Constant(kind, ir.Undefined)
        one = self._builder.insert_element(nothing, value, I32(0))
        return self._builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(I32, LANES), [0] * LANES))

    def call(self, name: str, result: Any, args: Sequence[Any]) -> Any:
        """An intrinsic of LLVM."""
        kind = ir.FunctionType(result, [arg.type for arg in args])
        return self._builder.call(cgutils.get_or_insert_function(self._builder.module, kind, name), args)

    def fused(self, a: Any, b: Any, c: Any) -> Any:
        """a·b + c, in one rounding where the machine can."""
        return self.call(f"llvm.fmuladd.v{LANES}f32", VECTOR, [a, b, c])

    def larger(self, a: Any, b: Any) -> Any:
        """Lane by lane."""
        return self._builder.select(self._builder.fcmp_ordered(">", a, b, flags=FLAGS), a, b)

    def largest(self, at: Callable[[Any], Any]) -> Any:
        """The largest absolute value of a row, whose vector at an offset is `at(offset)`."""
        top = cgutils.alloca_once_value(self._builder, ir.Constant(VECTOR, [0.0] * LANES))
        with self.each_vector() as offset:
            size = self.call(f"llvm.fabs.v{LANES}f32", VECTOR, [at(offset)])
            self._builder.store(self.larger(size, self._builder.load(top, typ=VECTOR)), top)
        value, lanes = self._builder.load(top, typ=VECTOR), LANES
        while lanes > 1:
            lanes //= 2
            nothing, kind = ir.Constant(value.type, ir.Undefined), ir.VectorType(I32, lanes)
            halves = [ir.Constant(kind, list(range(first, first + lanes))) for first in (0, lanes)]
            value = self.larger(*(self._builder.shuffle_vector(value, nothing, half) for half in halves))
        return self._builder.extract_element(value, I32(0))
