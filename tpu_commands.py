"""`dgdm tpu`: the accelerators of this machine."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from .options import AsJson, say, sentences

app = typer.Typer(help="Edge TPUs: what is there, how it is, how to bring it back.", no_args_is_help=True)

Device = Annotated[
    str | None, typer.Argument(metavar="[DEVICE]", help="/dev/apex_N, pci:N, usb:N or cpu; all by default")
]


@app.command("list")
def list_devices(as_json: AsJson = False) -> None:
    """Devices that the system shows; none is opened."""
    from .tpu.discovery import discover, driverless, owner, temperature

    found: list[dict[str, Any]] = [
        {
            "device": info.spec,
            "name": info.name,
            "bus": info.bus,
            "celsius": temperature(info),
            "owner": owner(info),
        }
        for info in discover()
    ]
    bare = [path.name for path in driverless()]
    if as_json:
        typer.echo(json.dumps({"devices": found, "without_driver": bare}))
        return
    for device in found:
        heat = "no thermometer" if device["celsius"] is None else f"{device['celsius']:g} °C"
        user = "free" if device["owner"] is None else f"open in process {device['owner']}"
        say(f"{device['device']}  {device['name']}  {heat}  {user}")
    for address in bare:
        say(f"PCIe device {address} has no driver: see dgdm tpu health pci:0")
    if not found and not bare:
        say("no Edge TPU on this machine: the CPU runs the same files")


@app.command()
def health(
    device: Device = None,
    library: Annotated[
        str | None, typer.Option(metavar="FILE", help="of the delegate; libedgetpu.so.1 by default")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What is wrong, in words; exit code 1 when something is. The library is touched in a process that may crash."""
    with sentences():
        from .tpu.diagnosis import diagnose, survey
        from .tpu.process import LIBRARY

        used = library or LIBRARY
        found = survey(used) if device is None else [(device, diagnose(device, used))]
    if as_json:
        report = [
            {"device": path, "ok": seen.ok, "condition": seen.condition, "message": seen.message}
            for path, seen in found
        ]
        typer.echo(json.dumps(report))
    else:
        for path, seen in found:
            say(f"{'ok ' if seen.ok else 'BAD'}  {path}: {seen.message}")
    if not all(seen.ok for _, seen in found):
        raise typer.Exit(1)


@app.command("reset-advice")
def reset_advice(device: Device = None, as_json: AsJson = False) -> None:
    """What an administrator can type to bring a device back. Nothing is done by this command."""
    with sentences():
        from .tpu.diagnosis import reset_advice as advice
        from .tpu.discovery import discover

        paths = [device] if device is not None else [info.spec for info in discover()] or ["cpu"]
        steps = {path: advice(path) for path in paths}
    if as_json:
        typer.echo(json.dumps(steps))
        return
    for path, lines in steps.items():
        say(f"{path}:")
        for line in lines:
            say(f"  {line}")
