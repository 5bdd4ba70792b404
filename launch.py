#!/usr/bin/env python3
"""Start Latent Studio: `python launch.py`.

Needs Python's standard library only. The first start makes `.venv` beside this file, installs the project into it and
hands over to `python -m studio`; every later start compares `.venv/stamp.json` with what is wanted and hands over at
once. Installing is in `studio/launcher/`, which is imported only when something is missing.

This file and `studio/launcher/` stay readable for Python 3.8, so that an old Python gets a sentence, not a syntax error.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = os.path.dirname(os.path.abspath(__file__))
# A file's tests share servers and models; files with slow tests go first (tests/conftest.py).
WHOLE_SUITE = ["-n", "auto", "--maxprocesses", "4", "--dist", "loadfile", "--no-loadscope-reorder"]
if ROOT not in sys.path:  # under `python -P` or PYTHONSAFEPATH a script does not see its own folder
    sys.path.insert(0, ROOT)

from studio.launcher.home import BUILDS, Home, LaunchError, Wanted, read_json  # noqa: E402

HELP = """\
usage: python launch.py [serve] [options]      start the server and open the page
       python launch.py generate PROMPT ...    paint from the command line
       python launch.py train CONFIG.toml      train a model
       python launch.py runs                   list training runs
       python launch.py dataset PATH           look at training data, write captions
       python launch.py models                 list checkpoints, VAEs, LoRAs, embeddings, upscalers ...
       python launch.py convert FILE ...       write .ckpt, .pt, .pth, .bin files anew as .safetensors
       python launch.py reproduce FILE         paint a picture again and compare
       python launch.py bench NAME             measure
       python launch.py test [pytest options]  run the tests
       python launch.py COMMAND --help         options of one command

The first start installs everything into .venv; later starts install nothing.

options of serve:
  --port PORT                      port (7860)
  --host HOST                      address to listen on (127.0.0.1)
  --listen                         listen on all addresses; needs --auth
  --share                          make a public link; makes a password when --auth is missing
  --auth USER:PASSWORD             ask for a name and a password
  --no-browser                     do not open the browser
  --data-dir DIR                   where checkpoints, loras, outputs and settings.json lie (this folder)
  --device auto|cpu|cuda|mps       device to paint on (auto)
  --attention KERNEL               auto, sdpa, chunked, flash or xformers (auto); xformers is installed when asked for
  --precision auto|fp32|bf16|fp16  number format to paint in (auto: the fastest; fp32 is the exact reference)
  --compile off|blocks|graphs      compile the U-Net's blocks, and record them as CUDA graphs; on CUDA (off)
  --without NAMES                  leave out what makes painting faster, to see what it does: see docs/speed.md
  --checkpoints-in-memory N        checkpoints that stay loaded, as far as the memory goes (4)
  --converted-checkpoints-gb N     disk for copies of checkpoints in the format that is painted in, on processors (10)
options of every command:
  --torch auto|cpu|cuda|rocm       torch build to install; auto: the installed one, at first the device's
  --help                           this page

An option can also be given as an environment variable (STUDIO_PORT=7861) or in settings.json ("port": 7861).
docs/install.md has more.
"""


def read_arguments(argv: Sequence[str], environ: Mapping[str, str]) -> Wanted:
    """What is asked for: command line before STUDIO_* variables before settings.json.

    `--torch` is for this file alone and taken out; `--attention` and `--data-dir` are looked at and left in.
    Raises `LaunchError` with exit code 2 for an option without a value and for an unknown build.
    """
    command = list(argv)
    given = {
        "torch": take_option(command, "--torch"),
        "attention": take_option(command, "--attention", keep=True),
        "data_dir": take_option(command, "--data-dir", keep=True),
    }
    folder = os.path.expanduser(given["data_dir"] or environ.get("STUDIO_DATA_DIR") or ROOT)
    settings = read_json(os.path.join(folder, "settings.json"))

    def value_of(name: str) -> str:
        return given[name] or environ.get("STUDIO_" + name.upper()) or str(settings.get(name) or "auto")

    torch = value_of("torch")
    if torch not in BUILDS:
        raise LaunchError("There is no torch build {!r}; --torch may be {}.".format(torch, ", ".join(BUILDS)), 2)
    return Wanted(torch, value_of("attention") == "xformers", command)


def take_option(words: list[str], name: str, keep: bool = False) -> str:
    """The value of `--name VALUE` or `--name=VALUE`, removed from `words` unless `keep`; empty when it is not there.

    Words after `--`, and those of `test`, which are pytest's, are not looked at.
    """
    for index, word in enumerate(words):
        if word == "--" or words[0] == "test":
            break
        key, equals, value = word.partition("=")
        if key == name:
            end = index + 1 if equals else index + 2
            value = value if equals else "".join(words[index + 1 : end])
            if not value:
                raise LaunchError(f"{name} needs a value.", 2)
            if not keep:
                del words[index:end]
            return value
    return ""


def hand_over(home: Home, command: Sequence[str]) -> int:
    """Become `python -m studio` (or pytest) of the environment. Returns its exit code on Windows, never elsewhere."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
    if command[:1] == ["test"]:
        words = [home.python, "-m", "pytest", *(command[1:] or WHOLE_SUITE)]
        os.chdir(home.root)
    else:
        words = [home.python, "-m", "studio", *command]
        environ["PYTHONSAFEPATH"] = "1"  # a folder named `studio` where the user stands is not the program
    if os.name == "nt" and not home.root.isascii():
        # Before 3.13 Python reads the file that names this folder in another encoding there than it is written in.
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, (home.root, environ.get("PYTHONPATH"))))
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name != "nt":
        os.execve(home.python, words, environ)
    import subprocess

    process = subprocess.Popen(words, env=environ)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the console sent it to both; the program ends in its own way
            continue


def start(argv: Sequence[str]) -> int:
    """Install what is missing, then hand over. Returns the exit code."""
    if argv[:1] in (["-h"], ["--help"], ["help"]):
        sys.stdout.write(HELP)
        return 0
    wanted = read_arguments(argv, os.environ)
    home = Home(ROOT)
    if home.is_incomplete(wanted):
        if wanted.command[:1] != ["test"] and not {"-h", "--help"}.isdisjoint(wanted.command):
            sys.stdout.write(HELP)
            return 0
        from studio.launcher.install import install

        install(home, wanted)
    if wanted.xformers and not home.has_xformers():
        sys.stderr.write(
            "launch: xformers is not installed (it needs an NVIDIA GPU and torch's CUDA build): SDPA is used.\n"
        )
    return hand_over(home, wanted.command)


def main() -> int:
    """`start` with its failures told in a sentence."""
    try:
        return start(sys.argv[1:])
    except LaunchError as error:
        details = "".join(f"\n    {line}" for line in error.details.splitlines())
        sys.stderr.write(f"{details}\n\nlaunch: {error}\n")
        return error.code
    except KeyboardInterrupt:
        sys.stderr.write("\nlaunch: Stopped. The next `python launch.py` goes on from here.\n")
        return 130
    except OSError as error:
        from studio.launcher.home import explain

        sys.stderr.write(f"\nlaunch: {explain(error)}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
