"""Frames survive any split and any content; garbage is refused."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.engine.wire import MAX_JSON, Channel, Message, WireError, pack_event, unpack_event
from studio.schema.events import Cancelled, Event, Finished, ImageReady, Progress, Started, Status

texts = st.text(st.characters(exclude_categories=["Cs"]))
bodies = st.dictionaries(texts, st.one_of(st.none(), st.booleans(), st.integers(), texts, st.lists(texts)))


def written(message: Message) -> bytes:
    stream = io.BytesIO()
    Channel(io.BytesIO(), stream).send(message.kind, message.body, message.blobs)
    return stream.getvalue()


def read_all(data: bytes) -> list[Message]:
    channel, found = Channel(io.BytesIO(data), io.BytesIO()), []
    while (message := channel.receive()) is not None:
        found.append(message)
    return found


@given(
    st.lists(st.builds(Message, texts, bodies, st.lists(st.binary(max_size=100), max_size=3).map(tuple)), max_size=4)
)
def test_frames_round_trip(messages: list[Message]) -> None:
    assert read_all(b"".join(written(message) for message in messages)) == messages


@given(st.builds(Message, texts, bodies, st.tuples(st.binary(max_size=40))), st.data())
def test_a_cut_frame_is_the_end(message: Message, data: st.DataObject) -> None:
    whole = written(message)
    assert read_all(whole[: data.draw(st.integers(0, len(whole) - 1))]) == []


@given(st.binary(max_size=60))
def test_garbage_never_makes_another_error(data: bytes) -> None:
    try:
        read_all(data)
    except WireError:
        pass


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"{}",
        b'{"kind": 1, "body": {}, "blobs": []}',
        b'{"kind": "x", "body": {}, "blobs": [-1]}',
        b"\xff",
        b"hello",
    ],
)
def test_what_is_no_frame_is_refused(text: bytes) -> None:
    with pytest.raises(WireError):
        read_all(struct.pack(">I", len(text)) + text)


def test_an_absurd_length_is_refused_before_reading() -> None:
    with pytest.raises(WireError, match="announced"):
        read_all(struct.pack(">I", MAX_JSON + 1))


@pytest.mark.parametrize(
    "event",
    [
        Started(),
        Status(message="Loading größer 🦊"),
        Progress(batch=1, batches=2, step=3, total=20, sigma=1.25, previews=(b"\xff\xd8a", b""), seconds=0.5),
        Progress(batch=0, batches=1, step=1, total=1, sigma=0.0),
        ImageReady(index=0, seed=2**32 - 1, width=64, height=64, infotext="x\nSeed: 1", png=bytes(range(256))),
        Finished(images=1, seconds=2.0),
        Cancelled(),
    ],
    ids=lambda event: event.type,
)
def test_events_round_trip(event: Event) -> None:
    body, blobs = pack_event(event)
    (message,) = read_all(written(Message("event", {"job": 1, "event": body}, blobs)))
    assert unpack_event(message.body["event"], message.blobs) == event


def test_an_unknown_event_is_refused() -> None:
    with pytest.raises(WireError):
        unpack_event({"type": "surprise"}, ())


@pytest.mark.parametrize("previews", [(), (b"one", b"two")])
@pytest.mark.parametrize("latents", [b"", b"numbers"])
def test_latents_travel_beside_previews(previews: tuple[bytes, ...], latents: bytes) -> None:
    event = Progress(batch=0, batches=1, step=1, total=2, sigma=0.5, previews=previews, latents=latents)
    body, blobs = pack_event(event)
    assert "latents" not in body
    assert unpack_event(body, blobs) == event
