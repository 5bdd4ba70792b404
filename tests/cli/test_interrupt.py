"""Ctrl-C asks first and ends second, and the old handler comes back."""

from __future__ import annotations

import os
import signal

import pytest

from studio.cli.interrupt import interruptible


@pytest.mark.skipif(os.name == "nt", reason="os.kill cannot send SIGINT to itself there")
def test_first_asks_second_ends(capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    with interruptible(lambda: asked.append(1), "saving"):
        os.kill(os.getpid(), signal.SIGINT)
        assert asked == [1]
        assert "saving" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert asked == [1]
    assert signal.getsignal(signal.SIGINT) is before
