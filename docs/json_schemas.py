"""JSON Schema of every message, made of the tables that the code judges by."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from dgdm.producers.dead_letters import OURS
from dgdm.schemas.deadletters import ERROR, MESSAGE, OFFSET, PARTITION, TOPIC, TRUNCATED
from dgdm.schemas.embeddings import Embedding
from dgdm.schemas.ids import MAX_ID_BYTES, parse_id
from dgdm.schemas.judging import FIELDS, INT64, MAX_DEPTH, Field
from dgdm.schemas.predictions import Prediction
from dgdm.schemas.progress import Progress
from dgdm.schemas.reasons import Reason
from dgdm.schemas.values import as_features, as_weight

from .sources import members

Schema = dict[str, Any]

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
BEYOND: Final = 2.0**128 - 2.0**103  # from here on a double rounds to infinity in float32
VANISHES: Final = 2.0**-150  # up to here it rounds to 0

ID: Final[Schema] = {
    "description": f"A node: 1 to {MAX_ID_BYTES} bytes of UTF-8, taken byte for byte; an integer is its decimal text, "
    'so 1 and "1" are the same node.',
    "anyOf": [
        {"type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES},
        {"type": "integer", "minimum": 1 - 10 ** (MAX_ID_BYTES - 1), "maximum": 10**MAX_ID_BYTES - 1},
    ],
}
NUMBER: Final[Schema] = {"type": "number", "exclusiveMinimum": -BEYOND, "exclusiveMaximum": BEYOND}
FEATURES: Final[Schema] = {
    "description": "One number per feature column, rounded to float32; or base64 of the same as float32, little-endian.",
    "anyOf": [
        {"type": "array", "items": NUMBER},
        {
            "type": "string",
            "contentEncoding": "base64",
            # 12 bytes are 16 characters: so the bytes are a multiple of 4.
            "pattern": "^(?:[A-Za-z0-9+/]{16})*(?:[A-Za-z0-9+/]{6}==|[A-Za-z0-9+/]{11}=)?$",
        },
    ],
}
WEIGHT: Final[Schema] = {
    "description": "Rounded to float32, and above 0 then; an edge is removed by RemoveEdge.",
    "type": "number",
    "exclusiveMinimum": VANISHES,
    "exclusiveMaximum": BEYOND,
    "default": 1.0,
}
OP: Final[Schema] = {
    "description": "Whether the weight replaces the edge's (and may be repeated), or is added to it.",
    "enum": ["set", "add"],
    "default": "set",
}
TS: Final[Schema] = {
    "description": "When it happened, in milliseconds since the epoch; the record's timestamp by default.",
    "type": "integer",
    "minimum": -INT64,
    "maximum": INT64 - 1,
}
RULES: Final = {"id": ID, "features": FEATURES, "weight": WEIGHT, "op": OP, "ts": TS}
CHECKED_BY: Final = {
    parse_id: "id",
    as_features: "features",
    as_weight: "weight",
    FIELDS["AddEdge"]["op"].check: "op",
    FIELDS["AddEdge"]["ts"].check: "ts",
}
"""The rule that says what a check of `FIELDS` accepts."""

MEANINGS: Final = {
    "AddNode": "A node appears, with zero features by default; of a node that is there the features are set.",
    "SetFeatures": "A node's features change.",
    "RemoveNode": "A node disappears with its edges.",
    "AddEdge": "An edge's weight is set, or added to.",
    "RemoveEdge": "An edge disappears.",
}
UNSAID: Final = (
    "the length of an id counts bytes of UTF-8, not characters",
    "an id is valid Unicode: no lone surrogates",
    "an id or a ts that is an integer is written without fraction and exponent: 1, not 1.0",
    "a number is rounded to a double before it is compared with the limits of float32",
    "base64 features are finite numbers",
    "no field is given twice",
    f"lists and maps, those of unknown fields too, are at most {MAX_DEPTH} deep",
    "the rules of the graph itself: as many features as it has columns, none too large for its accuracy, …",
)
"""Rules that JSON Schema cannot express."""


def json_schemas() -> dict[str, Schema]:
    """Every schema by its file's name."""
    return {
        "event.json": event(),
        "embedding.json": embedding(),
        "prediction.json": prediction(),
        "progress.json": progress(),
        "dead-letter-headers.json": dead_letter_headers(),
    }


def event() -> Schema:
    """The value of a record of the events topic."""
    return {
        "$schema": DRAFT,
        "title": "Graph event",
        "description": "The value of a record of the events topic, in JSON; its key is the id the event is about, for "
        "edges the source. In MessagePack it is the same map, and features may also be bin: float32, little-endian. "
        "Unknown fields are ignored. What this schema refuses is a dead letter; so is what breaks these rules, which "
        f"JSON Schema cannot express: {'; '.join(UNSAID)}.",
        "oneOf": [{"$ref": f"#/$defs/{kind}"} for kind in FIELDS],
        "$defs": {kind: _event(kind, fields) for kind, fields in FIELDS.items()} | RULES,
    }


def _event(kind: str, fields: dict[str, Field]) -> Schema:
    return {
        "description": MEANINGS[kind],
        "type": "object",
        "properties": {"type": {"const": kind}} | {name: _field(field) for name, field in fields.items()},
        "required": ["type", *(name for name, field in fields.items() if field.required)],
    }


def _field(field: Field) -> Schema:
    rule = {"$ref": f"#/$defs/{CHECKED_BY[field.check]}"}
    return {"anyOf": [rule, {"type": "null"}]} if field.nullable else rule


def embedding() -> Schema:
    """The value of a record of the embeddings topic."""
    fields: dict[str, Schema] = {
        "id": {
            "description": "The node; the record's key is the same text.",
            "type": "string",
            "minLength": 1,
        },
        "vector": {
            "description": "One float32 per feature column, in feature units.",
            "type": "array",
            "items": NUMBER,
            "minItems": 1,
        },
        "sequence": {"description": "How many events had been applied.", "type": "integer", "minimum": 0},
        "ts": {"description": "When it was sent, in milliseconds since the epoch.", "type": "integer"},
    }
    return {
        "$schema": DRAFT,
        "title": "Embedding",
        "description": "The value of a record of the embeddings topic with encoding = json; its key is the id. In "
        "MessagePack it is the same map, and vector is bin: float32, little-endian. A record without a value, a "
        "tombstone, says that the node is gone. The last record of a key is right.",
        **_object(fields, Embedding._fields),
    }


def prediction() -> Schema:
    """The value of a record of the predictions topic."""
    fields: dict[str, Schema] = embedding()["properties"] | {
        "vector": {
            "description": "What the head made of the node's vector; it has no bound.",
            "type": "array",
            "items": NUMBER,
            "minItems": 1,
        },
        "model": {"description": "The name of the head's file.", "type": "string"},
        "digest": {
            "description": "The first 16 hexadecimal digits of the SHA-256 of the head's file.",
            "type": "string",
            "pattern": "^[0-9a-f]{16}$",
        },
    }
    return {
        "$schema": DRAFT,
        "title": "Prediction",
        "description": "The value of a record of the predictions topic with encoding = json; its key is the id. In "
        "MessagePack it is the same map, and vector is bin: float32, little-endian. A record without a value says "
        "that the node is gone. The last record of a key is right.",
        **_object(fields, Prediction._fields),
    }


def progress() -> Schema:
    """The value of a record of the progress topic."""
    offsets: Schema = {
        "type": "object",
        "propertyNames": {"pattern": "^[0-9]+$"},
        "additionalProperties": {"type": "integer", "minimum": 0},
    }
    columns: Schema = {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}, "minItems": 1}
    count: Schema = {"type": "integer", "minimum": 0}
    fields: dict[str, Schema] = {
        "graph": {"description": "The graph's name; the record's key is the same text.", "type": "string"},
        "sequence": {"description": "How many events have been applied.", **count},
        "event_offsets": {
            "description": "By partition of the events topic: the next offset. Events before it are reflected, or are "
            "dead letters. (In MessagePack the partitions are integers.)",
            **offsets,
        },
        "output_offsets": {
            "description": "By partition of the embeddings topic: its end. Who has read up to here holds vectors within "
            "the bound.",
            **offsets,
        },
        "bound": {
            "description": "By feature column, in feature units: no vector that consumers hold is further from the exact "
            "answer. The accuracy, or more while catching up.",
            **columns,
        },
        "accuracy": {"description": "By feature column, in feature units: what was asked for.", **columns},
        "nodes": {"description": "Nodes of the graph.", **count},
        "arcs": {"description": "Arcs of the graph: an undirected edge is two, a loop is one.", **count},
        "ts": {"description": "When it was sent, in milliseconds since the epoch.", "type": "integer"},
    }
    return {
        "$schema": DRAFT,
        "title": "Progress",
        "description": "The value of a record of the progress topic with encoding = json: the freshness and the error of "
        "everything published so far. Its key is the graph's name. In MessagePack it is the same map.",
        **_object(fields, msgspec.structs.fields(Progress)),
    }


def dead_letter_headers() -> Schema:
    """The headers of a record of the dead-letter topic."""
    number: Schema = {"type": "string", "pattern": "^[0-9]+$"}
    reasons = [{"const": reason, "description": meaning} for _, reason, meaning in members(Reason)]
    fields: dict[str, Schema] = {
        ERROR: {"description": "Why it could not be applied.", "oneOf": reasons},
        MESSAGE: {"description": "The same in a sentence that names the value.", "type": "string"},
        TOPIC: {"description": "Where it stood: the topic,", "type": "string"},
        PARTITION: {"description": "the partition,", **number},
        OFFSET: {"description": "and the offset.", **number},
        TRUNCATED: {
            "description": "Only when the record was too large for the topic and was cut: how many bytes its value had.",
            **number,
        },
    }
    schema = _object(fields, OURS)
    schema["required"].remove(TRUNCATED)
    return {
        "$schema": DRAFT,
        "title": "Headers of a dead letter",
        "description": "The headers of a record of the dead-letter topic as a map of texts (UTF-8). The record's key, value "
        "and other headers are those of the event that was refused.",
        **schema,
    }


def _object(fields: dict[str, Schema], known: Any) -> Schema:
    """An object with these fields, which are the ones the code knows."""
    names = {getattr(field, "name", field) for field in known}
    if names != fields.keys():
        raise ValueError(f"fields that are described and fields that there are: {names ^ fields.keys()}")
    return {"type": "object", "properties": fields, "required": list(fields)}
