"""Valid events of every kind and encoding, and ways to spoil them: all from one seed, encoded by foreign libraries."""

from __future__ import annotations

import base64
import json
import random
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import msgpack

Fields = dict[str, Any]
KINDS = ("AddNode", "SetFeatures", "RemoveNode", "AddEdge", "RemoveEdge")
GOOD = "good"
ODD: tuple[Any, ...] = (None, True, False, 0, -1, 1.5, 2**63, "", "x", b"", b"abcd", [], [1], [[1.0]], {}, {"a": 1})  # fmt: skip
IDS: tuple[Any, ...] = (
    "", "a" * 256, "a" * 257, "ü" * 128, "ü" * 129, " 1", "01", "\x00", "\ud800", True, 1.0, None, b"a", [], 2**64,
    -(2**63), 10**255, 10**256, -(10**255),
)  # fmt: skip
WEIGHTS: tuple[Any, ...] = (
    0, 0.0, -0.0, -1, 1e-46, 7.0e-46, 1e-45, 3.4028234e38, 3.4028235677973366e38, 3.5e38, 1e39, 10**350, 10**400, 2**63, "2",
    True, None, [1.0], float("nan"), float("inf"), -float("inf"),
)  # fmt: skip
NUMBER: tuple[Any, ...] = (
    float("nan"), float("inf"), 1e39, 10**350, 10**400, -1e39, 400.1, -5e3, 1e30, 3e38, 4.3e37, "1", True, None, [1.0], 2**64,
)  # fmt: skip
TIMES: tuple[Any, ...] = ("now", 1.5, 1.0, 2**63, 2**63 - 1, -(2**63), -(2**63) - 1, True, None, b"1", [], 10**30)  # fmt: skip
OPS: tuple[Any, ...] = ("multiply", "SET", "", 1, None, True, b"set", ["set"], {"set": 1})
TYPES: tuple[Any, ...] = ("Explode", "addedge", "", 1, None, True, b"AddNode", ["AddNode"], "Remove Node")


class Message(NamedTuple):
    """A record's value and how it was made."""

    value: bytes | None
    made: str  # GOOD, or the name of what was done to it


class Mutations:
    """Makes messages about `nodes` ids with `features` columns."""

    def __init__(self, seed: int, features: int = 4, nodes: int = 200) -> None:
        self.random = random.Random(seed)
        self._features, self._nodes = features, nodes

    def good(self) -> Message:
        """A valid message."""
        return Message(self.encoded(self.event()), GOOD)

    def bad(self) -> Message:
        """A valid message with something done to it; it may have stayed valid."""
        change = self.random.choice(BY_MEANING if self.random.random() < 0.7 else BY_BYTES)
        return Message(change(self), change.__name__.strip("_"))

    def raw(self) -> bytes:
        """What a change of bytes begins with: a valid message, or one that is bad already."""
        if self.random.random() < 0.8:
            return self.encoded(self.event())
        return self.random.choice(BY_MEANING)(self)

    # -- valid ones

    def node(self) -> str | int:
        """An id of the graph: a number is the same as its text."""
        number = self.random.randrange(self._nodes)
        return number if self.random.random() < 0.3 else str(number)

    def stranger(self) -> str:
        """An id that was hardly seen before."""
        return f"s{self.random.randrange(10**9)}"

    def event(self, kind: str | None = None) -> Fields:
        """The fields of a valid event; features are a list of numbers."""
        rng = self.random
        kind = kind or rng.choices(KINDS, (3, 2, 0.3, 6, 1))[0]
        fields: Fields = {"type": kind}
        if kind in ("AddEdge", "RemoveEdge"):
            fields |= {"source": self.node(), "target": self.node()}
        else:
            fields["id"] = self.node()
        if kind == "SetFeatures" or (kind == "AddNode" and rng.random() < 0.7):
            fields["features"] = [self.number() for _ in range(self._features)]
        if kind == "AddEdge" and rng.random() < 0.8:
            fields |= {"weight": 10 ** rng.uniform(-3, 3), "op": rng.choice(("set", "add"))}
        if rng.random() < 0.2:
            fields["ts"] = rng.randrange(2**41)
        return fields

    def number(self) -> float:
        """A feature: small, whole, or large for its accuracy."""
        rng = self.random
        return rng.choice((rng.gauss(0, 1), float(rng.randrange(-3, 4)), rng.uniform(-399, 399)))

    def encoded(self, fields: Fields, *, as_json: bool | None = None) -> bytes:
        """MessagePack or JSON, features in any of the ways a producer has."""
        rng = self.random
        as_json = rng.random() < 0.35 if as_json is None else as_json
        features = fields.get("features")
        if _are_floats(features) and rng.random() < 0.5:
            fields = {**fields, "features": struct.pack(f"<{len(features)}f", *features)}
        if rng.random() < 0.05:
            fields = {**fields, rng.choice(("more", "label", "x")): rng.choice(ODD)}
        if not as_json:
            try:
                return bytes(msgpack.packb(fields, unicode_errors="surrogatepass"))
            except (OverflowError, ValueError):
                pass  # JSON alone has such integers
        text = json.dumps(fields, default=_base64, ensure_ascii=rng.random() < 0.5)
        before = rng.choice((b"", b"", b"", b" ", b"\n\t ", b"\xef\xbb\xbf", b"\xef\xbb\xbf \r\n"))
        return before + text.encode(errors="surrogatepass")


def _are_floats(features: Any) -> bool:
    return isinstance(features, list) and all(type(x) is float and abs(x) < 3e38 for x in features)


def named(fields: Fields) -> list[str]:
    """The fields that name nodes."""
    return [name for name in fields if name in ("id", "source", "target")]


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


# -- by meaning: what still decodes


def _drop_a_field(m: Mutations) -> bytes:
    fields = m.event()
    del fields[m.random.choice(list(fields))]
    return m.encoded(fields)


def _rename_a_field(m: Mutations) -> bytes:
    fields = m.event()
    name = m.random.choice(list(fields))
    fields[m.random.choice((name.upper(), name + " ", "id", "source"))] = fields.pop(name)
    return m.encoded(fields)


def _odd_value(m: Mutations) -> bytes:
    fields = m.event()
    fields[m.random.choice(list(fields))] = m.random.choice(ODD)
    return m.encoded(fields)


def _other_type(m: Mutations) -> bytes:
    return m.encoded({**m.event(), "type": m.random.choice(TYPES + KINDS)})


def _id(m: Mutations) -> bytes:
    return m.encoded({**(fields := m.event()), m.random.choice(named(fields)): m.random.choice(IDS)})


def _weight(m: Mutations) -> bytes:
    return m.encoded({**m.event("AddEdge"), "weight": m.random.choice(WEIGHTS)})


def _heavier(m: Mutations) -> bytes:
    edge = m.event("AddEdge") | {"source": m.random.randrange(3), "target": m.random.randrange(3)}
    edge |= {"weight": m.random.uniform(1e38, 3.4e38), "op": m.random.choice(("set", "add", "add"))}
    return m.encoded(edge)


def _op(m: Mutations) -> bytes:
    return m.encoded({**m.event("AddEdge"), "op": m.random.choice(OPS)})


def _ts(m: Mutations) -> bytes:
    return m.encoded({**m.event(), "ts": m.random.choice(TIMES)})


def _feature(m: Mutations) -> bytes:
    fields = m.event("SetFeatures")
    fields["features"][m.random.randrange(len(fields["features"]))] = m.random.choice(NUMBER)
    return m.encoded(fields)


def _too_large_for_the_accuracy(m: Mutations) -> bytes:
    fields = m.event("SetFeatures")
    fields["features"][m.random.randrange(len(fields["features"]))] = m.random.uniform(-800, 800)
    return m.encoded(fields)


def _wrong_length(m: Mutations) -> bytes:
    fields = m.event("AddNode")
    count = m.random.choice((0, 1, 3, 5, 8, 64))
    if m.random.random() < 0.002:
        count = 40_000  # more than a dead letter keeps
    return m.encoded({**fields, "features": [m.number() for _ in range(count)]})


def _feature_bytes(m: Mutations) -> bytes:
    raw = struct.pack("<4f", *(m.number() for _ in range(4)))
    not_a_number = raw[:12] + b"\0\0\xc0\x7f"
    raw = m.random.choice((raw[:-1], raw[:-4], raw + b"\0", m.random.randbytes(16), not_a_number, b""))
    return m.encoded({**m.event("SetFeatures"), "features": raw})


def _bad_base64(m: Mutations) -> bytes:
    text = _base64(struct.pack("<4f", 1, 2, 3, 4))
    at = m.random.randrange(len(text))
    text = text[:at] + m.random.choice(("", "=", " ", "-", "_", "\n", "é", "A", "==")) + text[at + 1 :]
    return m.encoded({**m.event("SetFeatures"), "features": text}, as_json=m.random.random() < 0.8)


def _strange_node(m: Mutations) -> bytes:
    kind = m.random.choice(("SetFeatures", "AddEdge", "RemoveEdge", "RemoveNode"))
    return m.encoded({**(fields := m.event(kind)), m.random.choice(named(fields)): m.stranger()})


def _new_node(m: Mutations) -> bytes:
    return m.encoded({**m.event("AddNode"), "id": m.stranger()})


def _both_ends_strange(m: Mutations) -> bytes:
    node = m.stranger()
    other = m.random.choice((node, m.stranger()))
    return m.encoded({**m.event("AddEdge"), "source": node, "target": other})


def _not_a_map(m: Mutations) -> bytes:
    item = m.random.choice((*ODD[:-2], [m.event()], list(m.event().items())))
    return bytes(msgpack.packb(item))


def _deep(m: Mutations) -> bytes:
    inner: Any = m.random.choice(({}, [], 1))
    for _ in range(m.random.randrange(60, 66)):
        inner = [inner] if m.random.random() < 0.5 else {"a": inner}
    return m.encoded({**m.event(), "more": inner})


# -- by bytes: what a broken producer, disk or wire does


def _flip(m: Mutations) -> bytes:
    raw = bytearray(m.raw())
    for _ in range(m.random.randint(1, 3)):
        raw[m.random.randrange(len(raw))] ^= 1 << m.random.randrange(8)
    return bytes(raw)


def _overwrite(m: Mutations) -> bytes:
    raw = bytearray(m.raw())
    raw[m.random.randrange(len(raw))] = m.random.randrange(256)
    return bytes(raw)


def _truncate(m: Mutations) -> bytes:
    raw = m.raw()
    return raw[: m.random.randrange(len(raw))]


def _insert(m: Mutations) -> bytes:
    raw = m.raw()
    at = m.random.randrange(len(raw) + 1)
    return raw[:at] + m.random.randbytes(m.random.randint(1, 4)) + raw[at:]


def _cut_out(m: Mutations) -> bytes:
    raw = m.raw()
    at = m.random.randrange(len(raw))
    return raw[:at] + raw[at + m.random.randint(1, 4) :]


def _repeat(m: Mutations) -> bytes:
    raw = m.raw()
    at = m.random.randrange(len(raw))
    end = at + m.random.randint(1, 12)
    return raw[:end] + raw[at:end] + raw[end:]


def _splice(m: Mutations) -> bytes:
    a, b = m.raw(), m.raw()
    return a[: m.random.randrange(len(a) + 1)] + b[m.random.randrange(len(b) + 1) :]


def _two_in_one(m: Mutations) -> bytes:
    return m.raw() + m.random.choice((b"", b"\0", b" ", b"\n", b"}")) + m.raw()


def _field_twice(m: Mutations) -> bytes:
    fields = m.event()
    pairs = [*fields.items(), m.random.choice(list(fields.items()))]
    m.random.shuffle(pairs)
    if m.random.random() < 0.5:
        members = [json.dumps(dict([pair]), default=_base64)[1:-1] for pair in pairs]
        return f"{{{','.join(members)}}}".encode()
    return bytes([0x80 | len(pairs)]) + b"".join(msgpack.packb(part) for pair in pairs for part in pair)


def _strange_key(m: Mutations) -> bytes:
    return bytes(msgpack.packb({**m.event(), m.random.choice((1, None, b"id", 1.5, True)): 1}))


def _extension(m: Mutations) -> bytes:
    thing = m.random.choice((msgpack.ExtType(5, b"abc"), msgpack.Timestamp(m.random.randrange(2**33), 5)))
    fields = m.event()
    return bytes(msgpack.packb({**fields, m.random.choice((*fields, "more")): thing}))


def _null(m: Mutations) -> None:
    return None


def _noise(m: Mutations) -> bytes:
    return m.random.choice((b"", b"{", b"\x8f", b"\xef\xbb\xbf")) + m.random.randbytes(m.random.randrange(24))


BY_MEANING: tuple[Callable[[Mutations], bytes], ...] = (
    _drop_a_field, _rename_a_field, _odd_value, _other_type, _id, _weight, _heavier, _op, _ts, _feature,
    _too_large_for_the_accuracy, _wrong_length, _feature_bytes, _bad_base64, _strange_node, _new_node,
    _both_ends_strange, _not_a_map, _deep,
)  # fmt: skip
BY_BYTES: tuple[Callable[[Mutations], bytes | None], ...] = (
    _flip, _overwrite, _truncate, _insert, _cut_out, _repeat, _splice, _two_in_one, _field_twice, _strange_key,
    _extension, _null, _noise,
)  # fmt: skip
