"""`dgdm model`: files of encoders and heads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import AsJson, fail, say, sentences, whole

if TYPE_CHECKING:
    from .tpu.network import Network
    from .tpu.quantizer import QuantizationReport

app = typer.Typer(help="Model files: build, quantize, check, inspect, measure.", no_args_is_help=True)

LARGEST_BATCH = 65_536
NOT_TRIED = "unverified on hardware: nothing here was compiled for, or run on, a device by this project"

File = Annotated[Path, typer.Argument(metavar="FILE", help="a .tflite file")]
Weights = Annotated[
    str, typer.Argument(metavar="WEIGHTS", help="a .npz, .safetensors or float32 .tflite file, or a preset")
]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="the .tflite file to write")]
Rows = Annotated[
    int,
    typer.Option(
        parser=whole(2, LARGEST_BATCH), metavar="N", help="rows of one invocation, the golden one included"
    ),
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="cpu, /dev/apex_N, pci:N or usb:N")]


@app.command()
def build(weights: Weights, out: Out, rows: Rows = 256, as_json: AsJson = False) -> None:
    """A float32 file from weights, or from a preset (DGDM-Small, -Base, -Large) whose random weights know nothing."""
    with sentences():
        from .tpu.files import float_file
        from .tpu.model import ModelFile

        network = _network(weights)
        content = float_file(network, rows)
        _tflite(out).write_bytes(content)
    report = {
        "file": str(out),
        "digest": ModelFile(content).digest,
        "widths": list(network.widths),
        "weights": network.weights,
        "rows": rows,
        "bytes": len(content),
    }
    _show(report, as_json)


@app.command()
def quantize(
    weights: Weights,
    out: Out,
    data: Annotated[
        Path, typer.Option(metavar="FILE", help=".npz with `features` [n, F] and perhaps `labels` [n]")
    ],
    target: Annotated[str, typer.Option(metavar="TARGET", help="cpu or edgetpu")] = "cpu",
    accuracy: Annotated[
        float, typer.Option(metavar="SHARE", help="of the float32 score that must be kept")
    ] = 0.99,
    mixed: Annotated[bool, typer.Option(help="for the CPU: int4 or int16 layers where they pay")] = True,
    rows: Rows = 256,
    as_json: AsJson = False,
) -> None:
    """An integer file, each layer as precise as the task needs it; exit code 1 when the accuracy is not reached.

    For edgetpu all layers are int8, and FILE_edgetpu.tflite is written beside when edgetpu_compiler is on PATH.
    """
    if target not in ("cpu", "edgetpu"):
        raise fail(f"--target {target!r}: give cpu or edgetpu")
    with sentences():
        from .tpu.calibration import CalibrationData
        from .tpu.quantizer import AdaptiveQuantizer

        network = _network(weights)
        calibration = CalibrationData.from_dataset(data)
        quantizer = AdaptiveQuantizer(
            calibration,
            accuracy,
            mixed,
            target="edgetpu" if target == "edgetpu" else "cpu",
            rows=rows,
        )
        made = quantizer.quantize_model(network)
        written = made.save_tflite(_tflite(out))
    report = made.report
    if as_json:
        typer.echo(json.dumps({"files": [str(path) for path in written], **_as_dict(report)}))
    else:
        for line in _quantized(report):
            say(line)
        say(f"written: {', '.join(map(str, written))}")
    if not report.reached:
        raise typer.Exit(1)


@app.command()
def check(file: File, as_json: AsJson = False) -> None:
    """Will the Edge TPU's compiler map this file? Exit code 1 unless every operator is certain."""
    with sentences():
        from .tpu.opcheck import SRAM, Verdict
        from .tpu.opcheck import check as judged

        report = judged(file.read_bytes())
    ops = [op._asdict() for op in report.ops]
    if as_json:
        found = {"verdict": report.verdict, "parameters": report.parameters, "fits": report.fits, "ops": ops}
        typer.echo(json.dumps({**found, "note": NOT_TRIED}))
    else:
        for op in report.ops:
            said = "; ".join(op.reasons) or op.evidence
            say(f"{op.verdict:<8}{op.op}: {said}")
        room = (
            "stay on the device" if report.fits else "are more than it keeps, and sent with every invocation"
        )
        say(f"{report.verdict}: {report.parameters} of {SRAM} bytes of parameters {room}")
        say(NOT_TRIED)
    if report.verdict is not Verdict.CERTAIN:
        raise typer.Exit(1)


@app.command()
def inspect(file: File, as_json: AsJson = False) -> None:
    """What a file takes and gives, its digest, and whether a compiled one stands beside it."""
    with sentences():
        from .tpu.model import CpuModel, read_model
        from .tpu.opcheck import check as judged

        model = read_model(file)
        loaded, report = CpuModel(model.content), judged(model.content)
    found: dict[str, Any] = {
        "digest": model.digest,
        "bytes": len(model.content),
        "parameters": report.parameters,
        "inputs": [_spec(spec) for spec in loaded.inputs],
        "outputs": [_spec(spec) for spec in loaded.outputs],
        "operators": [op.op for op in report.ops],
        "edge_tpu": report.verdict,
        "compiled": None if model.compiled is None else len(model.compiled),
    }
    _show(found, as_json)


@app.command()
def bench(
    file: File,
    device: Device = "cpu",
    runs: Annotated[int, typer.Option(parser=whole(1), metavar="N", help="invocations")] = 200,
    library: Annotated[
        str | None, typer.Option(metavar="FILE", help="of the delegate; libedgetpu.so.1 by default")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Time of full batches, and who answered them: a device that is not fit leaves its work to the CPU."""
    with sentences():
        from .telemetry import configure_logging
        from .tpu.bench import bench_rows
        from .tpu.edge import EdgeTPU

        configure_logging("warning", "auto")  # what a device does wrong is said while it is measured
        options: dict[str, Any] = {} if library is None else {"library": library}
        with EdgeTPU(device, file, **options) as tpu:
            times = bench_rows(tpu.model, runs)
            by = {"device": tpu.model.by_device, "cpu": tpu.model.by_cpu}
    _show({"file": str(file), "device": device, **times._asdict(), "rows_by": by}, as_json)


def _network(weights: str) -> Network:
    from .tpu.network import PRESETS, preset
    from .tpu.quantizer import read_network

    if weights in PRESETS:
        return preset(weights)
    path = Path(weights)
    if not path.suffix:
        raise fail(f"{weights!r} is neither a file of weights nor one of {', '.join(PRESETS)}")
    return read_network(path)


def _tflite(path: Path) -> Path:
    if path.suffix != ".tflite":
        raise fail(f"--out {str(path)!r} does not end in .tflite")
    return path


def _spec(spec: Any) -> str:
    scale = f", scale {spec.scale:.4g}, zero point {spec.zero_point}" if spec.scale else ""
    return f"{spec.name}: {spec.kind} {list(spec.shape)}{scale}"


def _show(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report))
        return
    for name, value in report.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        shown = f"{value:.4g}" if isinstance(value, float) else shown
        say(f"{name.replace('_', ' '):>16}  {'none' if shown is None else shown}")


def _as_dict(report: QuantizationReport) -> dict[str, Any]:
    return {
        "reached": report.reached,
        "float_score": report.float_score,
        "target": report.target,
        "int8": report.int8._asdict(),
        "chosen": report.chosen._asdict(),
        "layers": [
            {
                "layer": layer.layer,
                "shape": list(layer.shape),
                "chosen": layer.chosen,
                "alone": {kind: trial._asdict() for kind, trial in layer.alone.items()},
            }
            for layer in report.layers
        ],
        "notes": report.notes,
    }


def _quantized(report: QuantizationReport) -> Iterator[str]:
    yield "layer    out x in      chosen   score alone in each precision"
    for layer in report.layers:
        shape = f"{layer.shape[0]} x {layer.shape[1]}"
        alone = "  ".join(f"{kind} {trial.score:.4f}" for kind, trial in layer.alone.items())
        yield f"{layer.layer:>5}    {shape:<14}{layer.chosen:<9}{alone}"
    for name, trial in (("int8", report.int8), ("chosen", report.chosen)):
        yield (
            f"{name:>6}: score {trial.score:.4f} of {report.float_score:.4f} in float32, relative error "
            f"{trial.error:.3g}, {trial.bytes} bytes, {trial.microseconds:.0f} µs a batch"
        )
    yield from (f"  {note}" for note in report.notes)
