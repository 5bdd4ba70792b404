"""Training runs as a whole: which there are, which wait, which train, and what can be done with them.

`manager` is what the faces use; `summary` and `curves` read a run's events; `record` tells a run's state from its folder;
`gate` lets painting and training take turns. The folders are the truth: nothing is kept here that they do not say.
"""

from studio.runs.manager import RunManager

__all__ = ["RunManager"]
