"""Weights from .npz and .safetensors, and what is wrong with those that are refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from dgdm.tpu.errors import ModelError
from dgdm.tpu.network import network_of, preset, read_weights, write_weights

W = [np.arange(6.0).reshape(2, 3), np.arange(8.0).reshape(4, 2)]
B = [np.arange(2.0), np.arange(4.0)]


def safetensors(path: Path, arrays: dict[str, tuple[str, np.ndarray]], **metadata: str) -> Path:
    """A file after the format's description."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, (kind, array) in arrays.items():
        raw = array.tobytes()
        header[name] = {
            "dtype": kind,
            "shape": array.shape,
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def same(path: Path) -> None:
    x = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    expected = np.maximum(x @ W[0].T + B[0], 0) @ W[1].T + B[1]
    np.testing.assert_allclose(read_weights(path).forward(x), expected, rtol=1e-5)


def test_npz(tmp_path: Path) -> None:
    write_weights(network_of("n", W, B), tmp_path / "n.npz")
    same(tmp_path / "n.npz")


def test_layers_go_by_their_numbers(tmp_path: Path) -> None:
    """A torch Sequential numbers its activations too, and ten layers sort as numbers, not as text."""
    names = {
        "encoder.10.weight": W[1],
        "encoder.10.bias": B[1],
        "encoder.9.weight": W[0],
        "encoder.9.bias": B[0],
    }
    np.savez(tmp_path / "n.npz", **names)
    same(tmp_path / "n.npz")


@pytest.mark.parametrize("kind", ["F64", "F32", "F16", "BF16"])
def test_safetensors(tmp_path: Path, kind: str) -> None:
    def stored(array: np.ndarray) -> np.ndarray:
        if kind == "BF16":  # the upper half of a float32
            return (array.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return array.astype({"F64": np.float64, "F32": np.float32, "F16": np.float16}[kind])

    arrays = {f"{i}.weight": (kind, stored(w)) for i, w in enumerate(W)}
    arrays |= {f"{i}.bias": (kind, stored(b)) for i, b in enumerate(B)}
    same(safetensors(tmp_path / "n.safetensors", arrays, made="by hand"))


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({}, "0 weights and 0 biases"),
        ({"0.weight": W[0]}, r"weights of layers \[0\], biases of \[\]"),
        ({"0.weight": W[0], "0.bias": B[1]}, r"layer 0 has weight \(2, 3\) and bias \(4,\)"),
        ({"0.weight": W[0], "0.bias": B[0], "1.weight": W[0], "1.bias": B[0]}, r"want \[out, 2\]"),
        ({"0.weight": W[0], "0.bias": B[0], "running_mean": B[0]}, "'running_mean' does not end like"),
        ({"a.0.weight": W[0], "b.0.weight": W[0], "0.bias": B[0]}, "two arrays claim"),
        ({"0.weight": W[0] * np.nan, "0.bias": B[0]}, "not a finite number"),
        ({"0.weight": np.array([object()]), "0.bias": B[0]}, "cannot be read"),
    ],
)
def test_bad_weights_are_named(tmp_path: Path, arrays: dict[str, np.ndarray], says: str) -> None:
    np.savez(tmp_path / "n.npz", **arrays)
    with pytest.raises(ModelError, match=says):
        read_weights(tmp_path / "n.npz")


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 8, struct.pack("<Q", 4) + b"{}  ", struct.pack("<Q", 9) + b'{"a": {}}']
)
def test_bad_files_are_refused(tmp_path: Path, content: bytes) -> None:
    for name in ("n.npz", "n.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=r"cannot be read|0 weights"):
            read_weights(tmp_path / name)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"neither \.npz nor \.safetensors"):
        read_weights(tmp_path / "n.pt")
    with pytest.raises(ModelError, match="cannot be read"):
        read_weights(tmp_path / "missing.npz")
    bad = safetensors(tmp_path / "n.safetensors", {"0.weight": ("I8", np.ones((2, 2), np.int8))})
    with pytest.raises(ModelError, match="has type I8; want one of F64"):
        read_weights(bad)


def test_presets() -> None:
    assert [preset(f"DGDM-{size}").weights for size in ("Small", "Base", "Large")] == [
        24_768,
        295_808,
        1_837_312,
    ]
    with pytest.raises(ModelError, match="there is no preset 'DGDM-Tiny': DGDM-Small, DGDM-Base, DGDM-Large"):
        preset("DGDM-Tiny")
