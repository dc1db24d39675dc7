"""What devices and models count. Names end in their unit."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class TpuMetrics:
    """Give it the registry of the service around it; without one it has its own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = r = registry or CollectorRegistry()
        self.invocations = Counter(
            "dgdm_tpu_invocations", "Answers, by who gave them.", ["device", "by"], registry=r
        )
        self.faults = Counter("dgdm_tpu_faults", "Faults of a device.", ["device", "kind"], registry=r)
        self.restarts = Counter("dgdm_tpu_restarts", "Processes brought up.", ["device"], registry=r)
        self.seconds = Histogram(
            "dgdm_tpu_invoke_seconds",
            "Time of an invocation on the device, with the way there and back.",
            ["device"],
            registry=r,
            buckets=(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
        )
        self.state = Gauge(
            "dgdm_tpu_state", "1 for the state a device is in.", ["device", "state"], registry=r
        )
        self.temperature = Gauge(
            "dgdm_tpu_temperature_celsius", "Of the device, if it tells.", ["device"], registry=r
        )
        self.power = Gauge(
            "dgdm_tpu_power_estimate_watts",
            "An estimate from clock and busy time: no device can measure it.",
            ["device"],
            registry=r,
        )
        self.duty = Gauge(
            "dgdm_tpu_busy_ratio", "Share of the last ten seconds it was busy.", ["device"], registry=r
        )
        self.passes = Counter(
            "dgdm_region_passes", "Passes over a region, by what became of them.", ["result"], registry=r
        )
        self.bakes = Counter("dgdm_region_bakes", "Regions baked again.", registry=r)
        self.encoded = Gauge(
            "dgdm_encoded_nodes",
            "Nodes by the digest of the encoder that made their features. Two of them: rows are being encoded anew.",
            ["digest"],
            registry=r,
        )
        self.swaps = Counter("dgdm_model_swaps", "Models swapped, by outcome.", ["outcome"], registry=r)
