"""What can go wrong with models and devices, each with the way out in its text."""

from __future__ import annotations

from enum import StrEnum


class TpuError(Exception):
    """The root of this room's errors; the text says what is wrong and what to do."""


class MissingRuntimeError(TpuError):
    """A library that is not installed is needed; the text names the command that installs it."""


class ModelError(TpuError):
    """A model file, its weights or its data cannot be used as asked."""


class BusyError(TpuError):
    """Another process has the device."""


class FaultKind(StrEnum):
    """How a device fails; the label of the fault counter."""

    BUSY = "busy"  # another process has it
    START = "start"  # the process, the delegate or the model does not come up
    ERROR = "error"  # invoke answers with an error
    HANG = "hang"  # no answer within the watchdog's time; the process was killed
    DIED = "died"  # the process ended by itself
    WRONG = "wrong"  # the golden row came back different
    LOST = "lost"  # the device is gone from its bus


class DeviceFaultError(TpuError):
    """A device failed; the process that drives the stream did not."""

    def __init__(self, kind: FaultKind, reason: str) -> None:
        super().__init__(f"{kind}: {reason}")
        self.kind = kind
        self.reason = reason
