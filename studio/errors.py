"""Every error a user can meet, as one tree.

    StudioError                 code, message, HTTP status; crosses the process pipe as JSON
     +- InvalidRequest   422    a field has a value outside what is allowed
     +- UnknownName      400    a sampler, schedule, LoRA ... that is not there; carries near matches
     |   +- UnknownModel 404    the same for checkpoints and VAEs
     +- DamagedFile      422    a file that cannot be read as what it claims to be
     +- IncompatibleFile 422    a sound file of the wrong kind or family
     +- Unauthorized     401    no login, or a wrong one
     +- TooManyTries     429    somebody is guessing passwords
     +- NotAllowed       403    refused for safety
     +- NotFound         404    a job, picture or file id that does not exist
     +- QueueFull        429    too many waiting jobs
     +- StorageError     507    the disk is full or the folder cannot be written
     +- OutOfMemory      503    the device could not hold the job
     +- WorkerDied       500    the process that paints ended unexpectedly
     +- EngineError      500    anything else that broke while painting
     +- SettingsError    422    a setting that cannot be used
     +- TrainingError    500    a training run that cannot go on
         +- DatasetError 422    pictures and captions that cannot be used

Messages are written for the person who reads them: they name the value and what is allowed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar


class StudioError(Exception):
    """Base of all errors with a message meant for the user.

    `field` names the request field at fault, `choices` what would have been accepted (near matches first).
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, field: str | None = None, choices: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.choices = tuple(choices)

    def to_dict(self) -> dict[str, Any]:
        """JSON form: `{code, message, field, choices}`; `from_dict` turns it back into the same class."""
        return {"code": self.code, "message": self.message, "field": self.field, "choices": list(self.choices)}


class InvalidRequest(StudioError):
    """A value outside its bounds, or of the wrong type."""

    status = 422
    code = "invalid_request"


class UnknownName(StudioError):
    """A name that is in no list; build it with `UnknownName.of` to get near matches into the message."""

    status = 400
    code = "unknown_name"

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str], *, field: str | None = None) -> UnknownName:
        """`kind` as the user would call it ("sampler"), `known` all accepted names."""
        names = list(known)
        near = near_matches(name, names)
        if near:
            hint = f" Did you mean {_listed(near)}?"
        elif names:
            hint = f" Known: {_listed(names[:12])}{' …' if len(names) > 12 else ''}."
        else:
            hint = f" There is no {kind} yet."
        return cls(f"There is no {kind} named {name!r}.{hint}", field=field, choices=near or names[:12])


class UnknownModel(UnknownName):
    """A checkpoint or VAE that is not in the library."""

    status = 404
    code = "unknown_model"


class DamagedFile(StudioError):
    """A truncated or malformed file."""

    status = 422
    code = "damaged_file"


class IncompatibleFile(StudioError):
    """A sound file that does not fit: a LoRA of another family, a .ckpt, a model kind we do not know."""

    status = 422
    code = "incompatible_file"


class NotAllowed(StudioError):
    """Refused for safety."""

    status = 403
    code = "not_allowed"


class TooManyTries(StudioError):
    """Somebody is guessing."""

    status = 429
    code = "too_many_tries"


class Unauthorized(StudioError):
    """No login, or a wrong one."""

    status = 401
    code = "unauthorized"


class NotFound(StudioError):
    """No such job, picture or file."""

    status = 404
    code = "not_found"


class QueueFull(StudioError):
    """The queue holds as many waiting jobs as it may."""

    status = 429
    code = "queue_full"


class StorageError(StudioError):
    """Writing failed: disk full, folder missing or read-only. What was made stays downloadable."""

    status = 507
    code = "storage"


class OutOfMemory(StudioError):
    """The device (or the machine) has too little memory for the job."""

    status = 503
    code = "out_of_memory"


class WorkerDied(StudioError):
    """The worker process ended while it had a job."""

    status = 500
    code = "worker_died"


class EngineError(StudioError):
    """Painting failed for a reason that has no class of its own."""

    status = 500
    code = "engine"


class SettingsError(StudioError):
    """A setting from the file, the environment or the command line cannot be used."""

    status = 422
    code = "settings"


class TrainingError(StudioError):
    """A training run cannot start or go on; what it had saved stays."""

    status = 500
    code = "training"


class DatasetError(TrainingError):
    """A data set that cannot be read: nothing usable, a damaged archive, a picture that is gone."""

    status = 422
    code = "dataset"


def from_dict(data: dict[str, Any]) -> StudioError:
    """The inverse of `StudioError.to_dict`; an unknown code gives an `EngineError`."""
    by_code = {cls.code: cls for cls in reversed(_all_subclasses(StudioError))}  # the base before what refines it
    cls = by_code.get(str(data.get("code")), EngineError)
    return cls(str(data.get("message", "")), field=data.get("field"), choices=data.get("choices") or ())


def near_matches(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Up to `limit` of `known` closest to `name`, ignoring case; best first."""
    by_fold: dict[str, str] = {}
    for item in known:
        by_fold.setdefault(item.casefold(), item)
    folded = name.casefold()
    found = difflib.get_close_matches(folded, by_fold, n=limit, cutoff=0.6)
    contained = [k for k in by_fold if folded and folded in k and k not in found]
    return [by_fold[k] for k in (found + contained)[:limit]]


def error_text(error: BaseException) -> str:
    """`error` as one short line: its class and the first line of its message."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= 300 else text[:299] + "…"


def _all_subclasses(cls: type[StudioError]) -> list[type[StudioError]]:
    return [cls, *(s for sub in cls.__subclasses__() for s in _all_subclasses(sub))]


def _listed(names: list[str]) -> str:
    return ", ".join(repr(n) for n in names)
