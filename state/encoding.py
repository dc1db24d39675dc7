"""An encoder before diffusion: features of events become X on their way in, and X of a former model is made anew."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import structlog
from numpy.lib.stride_tricks import sliding_window_view

from ..diffusion.local import APPLIED, NOTHING
from ..schemas.reasons import InvalidEvent, Reason, shortened
from .applying import FIRST_BORN, SECOND_BORN, Batch, change_features, find_rows
from .columns import UNREAD, Columns, columns_of
from .id_table import NOBODY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ..diffusion.arrays import Floats
    from .graph import GraphState
    from .raw_features import Answer, Encoder, RawFeatures, StaleRows
    from .rules import Rules

log = structlog.get_logger()


class Encoded(NamedTuple):
    """Events whose features are what an encoder made of them."""

    columns: Columns
    refused: list[tuple[int, InvalidEvent]]  # places in the batch
    places: NDArray[np.int64]  # [k]: of events with features
    raw: Floats  # [k, width]
    digest: str  # of the model


def encode(values: Sequence[bytes | None], encoder: Encoder, width: int, rules: Rules) -> Encoded:
    """Read events and send their features, `width` columns each, through the encoder. From any thread."""
    columns, refused = columns_of(values)
    given = np.flatnonzero(columns.kind != UNREAD)
    given = given[columns.features[given] >= 0]
    long = columns.width[given] == width
    for i in given[~long].tolist():
        count = int(columns.width[i])
        raw = _floats(columns, given[given == i], count)[0]
        what = f"{count} features where the encoder takes {width}: {shortened(raw)}"
        refused.append((i, InvalidEvent(Reason.WRONG_LENGTH, what)))
        columns.kind[i] = UNREAD
    places = given[long]
    raw = _floats(columns, places, width)
    if not len(places):
        return Encoded(columns, refused, places, raw, "")
    answer = encoder.run(raw)
    x = answer.outputs
    fits = within_reach(x, rules)
    for k in np.flatnonzero(~fits).tolist():
        refused.append((int(places[k]), _refusal(x[k], rules)))
        columns.kind[places[k]] = UNREAD
    text = np.concatenate([columns.text, np.ascontiguousarray(x, "<f4").view(np.uint8).reshape(-1)])
    columns.features[places] = len(columns.text) + 4 * rules.features * np.arange(len(places))
    columns.width[places] = rules.features
    return Encoded(columns._replace(text=text), refused, places[fits], raw[fits], answer.digest)


def within_reach(x: Floats, rules: Rules) -> NDArray[np.bool_]:
    """[k]: which answers [k, F] the arrays may hold."""
    near: NDArray[np.bool_] = np.abs(x - rules.offset) <= rules.reach
    return np.asarray(near.all(axis=1))


def _refusal(x: Floats, rules: Rules) -> InvalidEvent:
    bad = np.flatnonzero(~np.isfinite(x))
    if len(bad):
        return InvalidEvent(Reason.NOT_FINITE, f"the encoder's answer, column {bad[0]}, is {x[bad[0]]}")
    error = rules.out_of_reach(x)
    return InvalidEvent(error.reason, f"the encoder's answer: {error}")


def _floats(columns: Columns, places: NDArray[np.int64], count: int) -> Floats:
    """[k, count]: the features of these events."""
    if not (count and len(places)):
        return np.empty((len(places), count), np.float32)
    spans = sliding_window_view(columns.text, 4 * count)
    return np.asarray(spans[columns.features[places]].view("<f4"), np.float32)


def follow(graph: GraphState, raw: RawFeatures, encoded: Encoded, batch: Batch) -> None:
    """Raw features after a batch: of what was applied, in the order of the events.

    A row belongs to one node at the end of the batch, and what came before that node was born is another one's.
    """
    columns = encoded.columns
    find_rows(graph.ids, columns, batch)
    births = [
        (np.flatnonzero(batch.born & bit), batch.rows[(batch.born & bit) > 0, end])
        for end, bit in ((0, FIRST_BORN), (1, SECOND_BORN))
    ]
    born = np.concatenate([rows for _, rows in births])
    events = np.concatenate([at for at, _ in births])
    lives, order = born != NOBODY, np.argsort(events, kind="stable")
    born, events = born[order][lives[order]], events[order][lives[order]]
    capacity = len(graph.arrays.alive)
    raw.put(born, np.zeros((len(born), raw.width), np.float32), raw.current, capacity)
    rows = batch.rows[encoded.places, 0]
    began = np.zeros(len(encoded.places), np.int64)
    if len(born):
        first = dict(zip(born.tolist(), events.tolist(), strict=True))  # of two births the last
        began = np.array([first.get(row, 0) for row in rows.tolist()], np.int64)
    applied = np.isin(batch.outcome[encoded.places], (APPLIED, NOTHING))
    mine = (rows != NOBODY) & applied & (encoded.places >= began)
    if mine.any():
        raw.put(rows[mine], encoded.raw[mine], encoded.digest, capacity)


class Encoding:
    """The encoder of one graph at work. `rows` of a former model are encoded anew at a time."""

    def __init__(self, encoder: Encoder, graph: GraphState, raw: RawFeatures, rows: int) -> None:
        self._encoder, self._graph, self._raw, self._rows = encoder, graph, raw, rows
        self._thread = ThreadPoolExecutor(1, "dgdm-encoder")
        self._asked: Future[tuple[StaleRows, Answer]] | None = None
        self._renewing = False  # and it has not been said that it is done
        self._kept = 0  # nodes that the model of now has no good answer for

    def encode(self, values: Sequence[bytes | None]) -> Encoded:
        """Events on their way in. From any thread."""
        return encode(values, self._encoder, self._raw.width, self._graph.rules)

    def use(self, zeros: Answer) -> None:
        """In the kernel thread: the model of now, which made this of zeros. Other models' rows will be encoded anew."""
        graph = self._graph
        behind = self._raw.use(zeros.digest, graph.rules.scaled(zeros.outputs[0]), graph.rows())
        self._kept, self._renewing = 0, behind > 0
        if behind:
            message = f"{behind} of {graph.nodes} nodes are encoded anew, by {zeros.digest}"
            log.info("encoding_anew", message=message, digest=zeros.digest)

    @property
    def due(self) -> Future[tuple[StaleRows, Answer]] | None:
        """What is being encoded anew: when it is done, `step` has something to do."""
        asked = self._asked
        return None if asked is None or (asked.done() and self._graph.pending_count) else asked

    def step(self) -> None:
        """In the kernel thread: apply what has been encoded anew, and ask for more.

        Not before what the last rows woke has been pushed: events come first, and the bound stays small.
        """
        if self._asked is not None and self._asked.done() and not self._graph.pending_count:
            future, self._asked = self._asked, None
            self._apply(*future.result())
        if self._asked is None and self._raw.stale:
            stale = self._raw.take_stale(self._rows, self._graph.arrays.alive)
            if len(stale.rows):
                self._asked = self._thread.submit(lambda: (stale, self._encoder.run(stale.raw)))
        if self._asked is None and self._renewing:
            self._finished()

    def close(self) -> None:
        """Wait for what is asked; may be called twice."""
        self._thread.shutdown()

    def _apply(self, then: StaleRows, answer: Answer) -> None:
        """Changes of features, and of nothing else. Rows that an event changed meanwhile are left to it."""
        graph, raw = self._graph, self._raw
        same = raw.unchanged(then, graph.arrays.alive)
        fits = within_reach(answer.outputs, graph.rules)
        self._kept += int((same & ~fits).sum())
        good = np.flatnonzero(same & fits)
        rows, x = then.rows[good], graph.rules.scaled(answer.outputs[good])
        change_features(graph.arrays, rows, x, graph.peak, graph.alpha, graph.epsilon)
        raw.encoded(rows, answer.digest)
        graph.remade += 1

    def _finished(self) -> None:
        self._renewing = False
        if self._kept:
            log.warning(
                "encoding_kept",
                message=f"{self._kept} nodes keep what a former encoder made of them: what this one makes is not finite, "
                "or too far from the offset for the accuracy",
                nodes=self._kept,
            )
        digest = self._raw.current
        log.info("encoded_anew", message=f"nodes are as encoder {digest} has them", digest=digest)
