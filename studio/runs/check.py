"""What can be said about a configuration before a process is started for it."""

from __future__ import annotations

from pathlib import Path

from studio.errors import IncompatibleFile, InvalidRequest, NotAllowed
from studio.library import Library
from studio.paths import REPOSITORY, safe_join
from studio.schema.training import ScratchMethod, TrainingConfig
from studio.schema.training_tuning import TuningMethod

DATA_PATH = "method.data.path"


def check_training(config: TrainingConfig, library: Library) -> None:
    """Raise where the run would fail at once.

    `UnknownModel` and `IncompatibleFile` for its checkpoint, `InvalidRequest` for a data set that is not there, `NotAllowed` for a
    folder outside the repository.
    """
    method = config.method
    if isinstance(method, ScratchMethod) and method.start:
        safe_join(REPOSITORY, method.start)
    if not isinstance(method, TuningMethod):
        return
    model = library.checkpoint(method.model)
    if model.problem:
        raise IncompatibleFile(f"{model.name} cannot be trained: {model.problem}", field="method.model")
    if not Path(method.data.path).exists():
        raise InvalidRequest(f"There is no data set {method.data.path!r}.", field=DATA_PATH)


def placed(config: TrainingConfig, root: Path, *, anywhere: bool) -> TrainingConfig:
    """`config` with the whole path of its data set; a path is relative to the data folder `root`.

    Raises `InvalidRequest` for what is no path, `NotAllowed` for one outside `root`, links followed, unless `anywhere`.
    """
    method = config.method
    if not isinstance(method, TuningMethod):
        return config
    if not method.data.path.strip():
        raise InvalidRequest("The data set is missing: name its folder.", field=DATA_PATH)
    try:
        base = root.resolve()
        path = (base / Path(method.data.path).expanduser()).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidRequest(f"{method.data.path[:80]!r} is no path: {error}.", field=DATA_PATH) from error
    if not anywhere and base not in path.parents:
        raise NotAllowed(
            "Only data sets below the data folder can be used from another machine, or while the studio is open to others.",
            field=DATA_PATH,
        )
    data = method.data.model_copy(update={"path": str(path)})
    return config.model_copy(update={"method": method.model_copy(update={"data": data})})
