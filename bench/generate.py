"""How fast pictures come: `python launch.py bench generate [--quick] [--save] [--parts page worker embedded overhead]`.

With `--peers` the program runs beside others instead: see `bench/peers/`. Prints one JSON object. What is measured, and how to read it, is in `bench/README.md`. Nothing is downloaded; the U-Net
of the overhead part has Stable Diffusion 1.5's shapes and random weights.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil  # type: ignore[import-untyped]

from bench._machine import load, threads
from bench._models import OneModel, find_model, random_sd15
from bench._result import RESULTS, facts, finish, has_nothing_to_keep
from bench.peers import command as peers
from studio.computing import prepare_to_compute
from studio.engine.worker_client import WorkerEngine
from studio.errors import StudioError
from studio.paths import REPOSITORY
from studio.resolve import resolve
from studio.schema.engine import CancelToken, EngineInfo
from studio.schema.events import Finished, ImageReady, Progress
from studio.schema.models import ModelInfo
from studio.schema.request import GenerationRequest
from studio.schema.resolved import ResolvedRequest

if TYPE_CHECKING:
    from studio.engine.loaded import LoadedCheckpoint
    from studio.engine.runner import DiffusersEngine

PARTS = ("page", "worker", "embedded", "overhead")
EMBEDDED = "sprout-v1"
STEPS = 20
LIMIT = 120.0
OVERHEAD_SIDE = 256


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts asked for, print JSON; 1 when a part could not be measured (its entry then says why), 2 for options that do not go together."""
    parser = argparse.ArgumentParser(prog="bench generate", description="Measure how fast pictures come.")
    parser.add_argument(
        "--quick", action="store_true", help="few repetitions: a check that it runs, not a figure to quote"
    )
    parser.add_argument("--save", action="store_true", help="also write the result to bench/results/")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="what to measure (default: all)")
    peers.add_arguments(parser)
    options = parser.parse_args(argv)
    if has_nothing_to_keep("generate", quick=options.quick, kept=options.save):
        return 2
    if problem := peers.misplaced(options):
        print(f"bench generate: {problem}", file=sys.stderr)
        return 2
    if options.peers:
        return peers.run(options, measure_page)
    prepare_to_compute()
    result = facts("generate", quick=options.quick)
    failed = False
    for part in options.parts or PARTS:
        try:
            result[part] = _MEASURES[part](options.quick)
        except (StudioError, OSError, TimeoutError) as error:
            result[part], failed = {"error": str(error)}, True
    result["load_at_end"] = load()
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    kept = finish(result, RESULTS / f"generate-{stamp}.json" if options.save else None)
    return max(kept, int(failed))


# -- time to the first page -------------------------------------------------------------------------------------------


def measure_page(quick: bool) -> dict[str, Any]:
    """Seconds from starting the server process to the answer of `GET /`, in a fresh data folder, and the processor seconds of that process until then.

    The process that paints starts beside it, and is the part `worker`. Raises `OSError` when the server ends before that, and `TimeoutError`
    when there is no page after `LIMIT` seconds.
    """
    seconds, of_processor = zip(*(_first_page() for _ in range(1 if quick else 3)), strict=True)
    return {"seconds": _summary(seconds), "cpu_seconds": _summary(of_processor)}


def _first_page() -> tuple[float, float]:
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        command = [
            sys.executable,
            "-m",
            "studio",
            "serve",
            "--no-browser",
            "--port",
            str(port),
            "--data-dir",
            folder,
            "--device",
            "cpu",
        ]
        with (Path(folder) / "server.log").open("wb") as log:
            began = time.perf_counter()
            server = subprocess.Popen(
                command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
            try:
                _wait_for_page(port, server, began + LIMIT)
                used = psutil.Process(server.pid).cpu_times()
                return time.perf_counter() - began, used.user + used.system
            finally:
                server.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.wait(20)
                server.kill()
                server.wait()


def _wait_for_page(port: int, server: subprocess.Popen[bytes], end: float) -> None:
    while True:
        with (
            contextlib.suppress(OSError),
            contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection,
        ):
            connection.request("GET", "/")
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        if server.poll() is not None:
            raise OSError(f"the server ended with exit code {server.returncode}")
        if time.perf_counter() > end:
            raise TimeoutError(f"no page after {LIMIT:.0f} s")
        time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# -- the worker -------------------------------------------------------------------------------------------------------


def measure_worker(quick: bool) -> dict[str, Any]:
    """Seconds from spawning a worker until it is ready, and until the embedded model is loaded.

    Raises `UnknownModel` without that model, `OSError` when the worker ends, and `TimeoutError` when it takes longer than `LIMIT` seconds.
    """
    times = [_warm_up(find_model(EMBEDDED)) for _ in range(1 if quick else 3)]
    return {
        "ready_seconds": _summary([ready for ready, _ in times]),
        "embedded_model_loaded_seconds": _summary([loaded for _, loaded in times]),
    }


def _warm_up(model: ModelInfo) -> tuple[float, float]:
    """Seconds until the worker says that it is there, and until it has the model."""
    with contextlib.closing(WorkerEngine("cpu")) as engine:
        began = time.perf_counter()
        engine.start(model)
        _wait_until(engine, lambda info: bool(info.torch))
        ready = time.perf_counter() - began
        _wait_until(engine, lambda info: info.model == model.name)
        return ready, time.perf_counter() - began


def _wait_until(engine: WorkerEngine, condition: Callable[[EngineInfo], bool]) -> None:
    end = time.perf_counter() + LIMIT
    while not condition(info := engine.info()):
        if info.state in ("failed", "stopped"):
            raise OSError(info.message or "the worker stopped")
        if time.perf_counter() > end:
            raise TimeoutError(f"the worker was not there after {LIMIT:.0f} s")
        time.sleep(0.01)


# -- the embedded model -----------------------------------------------------------------------------------------------


def measure_embedded(quick: bool) -> dict[str, Any]:
    """Of batches of 1 and of 4 pictures: wall seconds a picture, pictures a second and steps a second (of a whole batch), by medians.

    Through the worker, as a user meets it: previews, PNG and pipe included. Raises `StudioError` without the embedded model, or as the engine
    does.
    """
    model = find_model(EMBEDDED)
    found: dict[str, Any] = {"steps": STEPS, "side": model.native_size}
    with contextlib.closing(WorkerEngine("cpu")) as engine:
        for size in (1, 4):
            requests = [_request(model, steps=STEPS, batch_size=size, seed=100 * i) for i in range(3 if quick else 9)]
            seconds = [_seconds(engine, request) for request in requests][1:]  # the first one loads the model
            each = statistics.median(seconds) / size
            found[f"batch_{size}"] = {"seconds_a_picture": round(each, 3), "pictures_a_second": round(1 / each, 2),
                                      "steps_a_second": round(STEPS / statistics.median(seconds), 1), "runs": len(seconds)}  # fmt: skip
    return found


def _seconds(engine: WorkerEngine, request: ResolvedRequest) -> float:
    began = time.perf_counter()
    events = list(engine.run(request, CancelToken()))
    assert isinstance(events[-1], Finished)
    return time.perf_counter() - began


# -- overhead of the loop ---------------------------------------------------------------------------------------------


@dataclass
class _Cost:
    """Wall and processor seconds of one run, all threads together."""

    wall: float
    cpu: float


def measure_overhead(quick: bool) -> dict[str, Any]:
    """What `DiffusersEngine` takes beyond the bare calls of text encoder, U-Net and VAE, interleaved (ABBA) in this process.

    Seconds of a picture and their difference in per cent; below 0 where the engine saves more than it adds. Raises `StudioError` as the
    engine does, and `OSError` when the model cannot be written.
    """
    import torch

    from studio.engine.runner import DiffusersEngine

    torch.set_num_threads(threads())
    steps, rounds = (2, 1) if quick else (4, 3)
    ours: list[_Cost] = []
    theirs: list[_Cost] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        model = random_sd15(Path(folder) / "sd15-shapes")
        engine = DiffusersEngine("cpu")
        bare = _bare_calls(engine.load(model), steps)
        requests = iter([_request(model, steps=steps, side=OVERHEAD_SIDE, seed=seed) for seed in range(2 * rounds + 1)])
        bare()
        _paint(engine, next(requests))  # both once unmeasured: first calls set kernels up
        for _ in range(rounds):
            theirs.append(_cost(bare))
            ours.append(_cost(lambda: _paint(engine, next(requests))))
            ours.append(_cost(lambda: _paint(engine, next(requests))))
            theirs.append(_cost(bare))
    wall = min(cost.wall for cost in ours) / min(cost.wall for cost in theirs) - 1  # the least disturbed runs
    cpu = sum(cost.cpu for cost in ours) / sum(cost.cpu for cost in theirs) - 1
    return {
        "side": OVERHEAD_SIDE, "steps": steps, "threads": torch.get_num_threads(), "runs_each": len(ours), "dtype": engine.info().dtype,
        "bare_seconds": _summary([cost.wall for cost in theirs]), "engine_seconds": _summary([cost.wall for cost in ours]),
        "overhead_percent_wall": round(100 * wall, 2), "overhead_percent_cpu": round(100 * cpu, 2),
    }  # fmt: skip


def _bare_calls(loaded: LoadedCheckpoint, steps: int) -> Callable[[], None]:
    """The model calls of one picture with guidance and nothing between them: two prompts, `steps` U-Net passes, one decode."""
    import torch

    model = loaded.model
    side = OVERHEAD_SIDE // model.latent.scale
    tokens = torch.full((1, 77), 49407)
    states = torch.randn(2, 77, model.unet.config.cross_attention_dim, dtype=model.unet.dtype)
    latents = torch.randn(2, model.latent.channels, side, side, dtype=model.unet.dtype)
    timesteps = torch.full((2,), 500.0)

    @torch.inference_mode()
    def run() -> None:
        for _ in range(2):
            model.text_encoders[0](input_ids=tokens)
        for _ in range(steps):
            model.unet(latents, timesteps, states, return_dict=False)
        model.vae.decode(latents[:1], return_dict=False)

    return run


def _paint(engine: DiffusersEngine, request: ResolvedRequest) -> None:
    events = list(engine.run(request, CancelToken()))
    assert sum(isinstance(event, Progress) for event in events) == request.steps
    assert sum(isinstance(event, ImageReady) for event in events) == 1


def _cost(action: Callable[[], None]) -> _Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return _Cost(time.perf_counter() - wall, time.process_time() - cpu)


# -- common -----------------------------------------------------------------------------------------------------------

_MEASURES: dict[str, Callable[[bool], dict[str, Any]]] = {
    "page": measure_page,
    "worker": measure_worker,
    "embedded": measure_embedded,
    "overhead": measure_overhead,
}


def _request(model: ModelInfo, *, steps: int, seed: int, batch_size: int = 1, side: int = 0) -> ResolvedRequest:
    """A request whose prompts differ by seed, so that no run finds them encoded."""
    side = side or model.native_size
    request = GenerationRequest(
        prompt=f"a red fox on a beach, number {seed}", negative_prompt=f"blurry, number {seed}", steps=steps, seed=seed,
        width=side, height=side, batch_size=batch_size,
    )  # fmt: skip
    return resolve(request, OneModel(model), lambda: seed)


def _summary(seconds: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(seconds), 3),
        "min": round(min(seconds), 3),
        "max": round(max(seconds), 3),
    }


if __name__ == "__main__":
    sys.exit(main())
