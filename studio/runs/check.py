"""What can be said about a configuration before a process is started for it."""

from __future__ import annotations

from pathlib import Path

from studio.errors import IncompatibleFile, InvalidRequest
from studio.library import Library
from studio.paths import REPOSITORY, safe_join
from studio.schema.runs import MemoryEstimate
from studio.schema.training import ScratchMethod, TrainingConfig
from studio.schema.training_tuning import TuningMethod
from studio.training.estimate import estimate

DATA_PATH = "method.data.path"


def check_training(config: TrainingConfig, library: Library) -> None:
    """Raise where the run would fail at once.

    `UnknownModel` and `IncompatibleFile` for its checkpoint, `InvalidRequest` for a data set that is not there, `NotAllowed` for a
    folder outside the repository.
    """
    method = config.method
    if isinstance(method, ScratchMethod):
        if method.start:
            safe_join(REPOSITORY, method.start)
        if not method.data.path:
            return
    elif isinstance(method, TuningMethod):
        model = library.checkpoint(method.model)
        if model.problem:
            raise IncompatibleFile(f"{model.name} cannot be trained: {model.problem}", field="method.model")
    else:
        return
    if not Path(method.data.path).exists():
        raise InvalidRequest(f"There is no data set {method.data.path!r}.", field=DATA_PATH)


def memory(config: TrainingConfig, library: Library) -> MemoryEstimate | None:
    """What the run will take, for methods that train a checkpoint further. Raises as `estimate`, and `UnknownModel`."""
    if not isinstance(config.method, TuningMethod):
        return None
    return estimate(config.method, library.checkpoint(config.method.model), short=config.precision == "bf16")
