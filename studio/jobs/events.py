"""`EventHub`: what happens, in order, for any number of listeners.

The last events are kept in a ring of fixed size and every subscription is only a position in it, so a slow or forgotten
listener costs nothing and one that was away can go on where it stopped. Threads block in `Subscription.get`; an event
loop passes a `wake` callback instead and needs no thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

from studio.schema.events import Event, JobEvent

RING = 4096
"""Events kept for late listeners: some forty jobs of a hundred steps."""


class Subscription:
    """A position in the stream. `missed` says that events between the wanted and the first kept one are gone."""

    def __init__(self, hub: EventHub, after: int, wake: Callable[[], None] | None) -> None:
        self._hub = hub
        self._wake = wake
        self.position = after
        self.missed = False

    def get(self, timeout: float) -> JobEvent | None:
        """The next event; None after `timeout` seconds without one, at once when the hub is closed. 0 never blocks."""
        return self._hub._next(self, timeout)

    @property
    def closed(self) -> bool:
        """True when no event will ever come again."""
        return self._hub._is_closed(self)

    def wake(self) -> None:
        """Called by the hub, from the publishing thread, whenever `get(0)` may have something new."""
        if self._wake is not None:
            self._wake()

    def close(self) -> None:
        """Stop listening. Idempotent; a thread blocked in `get` returns None."""
        self._hub._drop(self)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class EventHub:
    """Publish from any thread, listen from any thread."""

    def __init__(self, size: int = RING) -> None:
        self._changed = threading.Condition()
        self._ring: list[JobEvent | None] = [None] * size
        self._last = 0
        self._closed = False
        self._listeners: set[Subscription] = set()

    @property
    def last_seq(self) -> int:
        """Sequence number of the newest event; 0 before the first."""
        return self._last

    @property
    def listeners(self) -> int:
        """How many subscriptions are open."""
        return len(self._listeners)

    def publish(self, job_id: int, event: Event) -> JobEvent:
        """Number the event, keep it and wake everybody. After `close` it is numbered but nobody hears it."""
        with self._changed:
            self._last += 1
            entry = JobEvent(job_id=job_id, seq=self._last, at=time.time(), event=event)
            self._ring[entry.seq % len(self._ring)] = entry
            listeners = tuple(self._listeners)
            self._changed.notify_all()
        for listener in listeners:
            listener.wake()
        return entry

    def nudge(self) -> None:
        """Wake everybody although nothing was published: something else that they look at has changed."""
        with self._changed:
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener.wake()

    def subscribe(self, after: int | None = None, wake: Callable[[], None] | None = None) -> Subscription:
        """Listen to everything after sequence number `after` (None: from now on).

        A number this hub has not reached yet is of another run of the server: then all kept events are given again and
        `missed` is set. `wake` is called from the publishing thread and must return at once and not raise.
        """
        with self._changed:
            position = self._last if after is None else after
            subscription = Subscription(self, position, wake)
            if position > self._last or position < 0:
                subscription.position, subscription.missed = 0, True
            self._skip_lost(subscription)
            self._listeners.add(subscription)
            return subscription

    def close(self) -> None:
        """End all subscriptions. Idempotent."""
        with self._changed:
            self._closed = True
            listeners = tuple(self._listeners)
            self._listeners.clear()
            self._changed.notify_all()
        for listener in listeners:
            listener.wake()

    def _next(self, subscription: Subscription, timeout: float) -> JobEvent | None:
        deadline = time.monotonic() + timeout
        with self._changed:
            while subscription in self._listeners:
                self._skip_lost(subscription)
                if subscription.position < self._last:
                    subscription.position += 1
                    return self._ring[subscription.position % len(self._ring)]
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return None
                self._changed.wait(remaining)
        return None

    def _skip_lost(self, subscription: Subscription) -> None:
        oldest = max(1, self._last - len(self._ring) + 1)
        if subscription.position < oldest - 1:
            subscription.position, subscription.missed = oldest - 1, True

    def _drop(self, subscription: Subscription) -> None:
        with self._changed:
            self._listeners.discard(subscription)
            self._changed.notify_all()

    def _is_closed(self, subscription: Subscription) -> bool:
        return subscription not in self._listeners
