"""The stream of events: order, resuming, loss."""

from __future__ import annotations

import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from studio.jobs.events import EventHub
from studio.schema.events import Queued, Started


@given(published=st.integers(0, 60), after=st.integers(-5, 80), size=st.integers(1, 20))
def test_a_subscription_gives_what_is_kept_after_a_number(published: int, after: int, size: int) -> None:
    hub = EventHub(size)
    for position in range(published):
        hub.publish(1, Queued(position=position))
    events = hub.subscribe(after)
    got = [event.seq for event in iter(lambda: events.get(0), None)]
    start = 0 if after < 0 or after > published else after
    kept = range(max(1, published - size + 1), published + 1)
    assert got == [seq for seq in kept if seq > start]
    whole = got == list(range(after + 1, published + 1)) and 0 <= after <= published
    assert events.missed == (not whole)


def test_from_now_on_and_a_listener_that_falls_behind() -> None:
    hub = EventHub(4)
    hub.publish(1, Started())
    events = hub.subscribe()
    assert events.get(0) is None
    for _ in range(10):
        hub.publish(2, Started())
    assert [event.seq for event in iter(lambda: events.get(0), None)] == [8, 9, 10, 11]
    assert events.missed


def test_get_blocks_until_something_happens_and_close_ends_it() -> None:
    hub = EventHub()
    events = hub.subscribe()
    threading.Timer(0.05, hub.publish, (7, Started())).start()
    event = events.get(5)
    assert event is not None
    assert event.job_id == 7
    threading.Timer(0.05, hub.close).start()
    began = time.monotonic()
    assert events.get(5) is None
    assert time.monotonic() - began < 3
    assert events.closed


def test_wake_and_close() -> None:
    hub = EventHub()
    woken: list[int] = []
    with hub.subscribe(wake=lambda: woken.append(1)) as events:
        hub.publish(1, Started())
        assert woken == [1]
        assert hub.listeners == 1
    assert hub.listeners == 0
    hub.publish(1, Started())
    assert woken == [1]
    assert events.get(0) is None
