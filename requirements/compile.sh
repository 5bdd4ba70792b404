#!/usr/bin/env bash
# Makes the lock files anew from pyproject.toml: one resolution for Python 3.10 to 3.13 and all platforms, with hashes.
# Needs uv (in the `dev` extra). Arguments go to uv: `requirements/compile.sh --upgrade` takes the newest versions.
set -euo pipefail
cd "$(dirname "$0")/.."
export UV_CUSTOM_COMPILE_COMMAND="requirements/compile.sh"
uv pip compile --quiet "$@" --group installer --output-file requirements/installer.lock
uv pip compile --quiet "$@" pyproject.toml --output-file requirements/runtime.lock
uv pip compile --quiet "$@" pyproject.toml --extra test --constraint requirements/runtime.lock --output-file requirements/test.lock
