"""What slow vectors met on their way, against spans written by hand."""

from __future__ import annotations

from pathlib import Path

from dgdm.benchmarks.causes import NOTHING, Probe, met_on_the_way


def test_slow_vectors_and_all_are_told_apart(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.write_text(
        "10.0 before store\n10.2 before garbage 2\n10.3 after garbage 2\n20.0 after store\n30.0 before store\n"
    )
    quick = [Probe(float(due), 0.5) for due in range(100)]  # 10 of them while the store was written to
    slow = [Probe(9.9, 5.0), Probe(40.0, 5.0)]
    met = met_on_the_way(notes, quick + slow)
    assert met["slowest"] == {"store": 0.5, "garbage 2": 0.5, NOTHING: 0.5}
    assert met["all"]["store"] == round(11 / 102, 3)
    assert met["all"]["garbage 2"] == round(2 / 102, 3)
    assert met["all"][NOTHING] == round(91 / 102, 3)


def test_without_vectors_there_is_nothing_to_tell(tmp_path: Path) -> None:
    assert met_on_the_way(tmp_path / "none", []) == {}
