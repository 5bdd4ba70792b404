"""A result, of the processor or of a card, on the screen and in the documentation."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timezone

from bench.peers import card_report, report
from bench.peers.kept import PROCESSOR, Result
from studio.errors import StudioError


def show(result: Result, *, keep: bool) -> int:
    """Print the result as JSON, its tables to stderr, and with `keep` put it into the documentation and bench/results/.

    1 when it has errors in place of figures, or cannot be kept (stderr says why); 2 when it has no figures to keep.
    """
    kind = report if result["bench"] == PROCESSOR else card_report
    text = json.dumps(result, indent=2)
    print(text)
    print(f"\n{kind.words(result)}", file=sys.stderr)
    if keep:
        if result["quick"]:
            print("bench generate: tiny models have no figures to --save", file=sys.stderr)
            return 2
        try:
            for path in kind.save(result, text, f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}"):
                print(f"wrote {path}", file=sys.stderr)
        except (StudioError, OSError, ValueError) as error:
            print(f"bench generate: {error}", file=sys.stderr)
            return 1
    return int(kind.has_gaps(result))
