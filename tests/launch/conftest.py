"""A copy of the launcher in a folder of its own, with an environment whose Python is a shell script.

The script notes every call, plays pip (it makes the folders that an installation would leave, or fails with a given text)
and plays the program (it prints its arguments). So the real launch.py runs, in milliseconds and without a network.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from studio.launcher.home import ESSENTIAL, Home

ROOT = Path(__file__).resolve().parents[2]

FAKE_PYTHON = """\
#!/bin/sh
tree={tree}
site=$tree/.venv/lib/python3.11/site-packages
echo "$@" >> "$tree/calls.log"
if [ "$2" = pip ]; then
    [ -f "$tree/pip_waits" ] && touch "$tree/pip_is_waiting" && sleep 30
    if [ -f "$tree/pip_fails" ] && echo "$@" | grep -q -- "$(head -1 "$tree/pip_fails")"; then
        tail -n +2 "$tree/pip_fails"
        exit 1
    fi
    case "$*" in
        *runtime.lock) for name in {essential}; do [ $name = torch ] || mkdir -p "$site/$name"; done ;;
        *"index versions"*) printf 'torch (2.15.0)\\nAvailable versions: {versions}\\n' ;;
        *uninstall*torch) rm -r "$site"/torch* ;;
        *" xformers"*) mkdir -p "$site/xformers" ;;
        *torch[=\\>]*) mkdir -p "$site/torch" "$site/torch-2.13.0+cpu.dist-info" ;;
    esac
    exit 0
fi
printf '%s\\n' "$@"
exit "$(cat "$tree/exit_code" 2>/dev/null || echo 0)"
"""


@dataclass
class Tree:
    """The copy. `offered` are the versions that the fake index lists."""

    root: Path
    offered: str = "2.15.0, 2.13.0+cpu, 2.13.0, 2.12.1, 2.9.1+cpu"
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Home:
        return Home(str(self.root))

    def make_environment(self) -> None:
        """What `python -m venv` would leave."""
        python = self.root / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        (self.root / ".venv" / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
        script = FAKE_PYTHON.format(
            tree=shlex.quote(str(self.root)), essential=" ".join(ESSENTIAL), versions=self.offered
        )
        python.write_text(script, encoding="utf-8")
        python.chmod(0o755)

    def command(self, *arguments: str) -> list[str]:
        # Without `site`, for speed: the launcher needs the standard library only.
        return [sys.executable, "-S", str(self.root / "launch.py"), *arguments]

    def launch(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run launch.py. No index can be reached: the proxy refuses."""
        environment = {**self.environ, **environ}
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, env=environment, timeout=60, check=False
        )

    def pip_calls(self) -> list[str]:
        """The arguments of pip since the last look, the tree's path left out."""
        log = self.root / "calls.log"
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return [line.removeprefix("-m pip ").replace(f"{self.root}", "TREE") for line in lines if "-m pip" in line]

    def let_pip_fail(self, when: str, text: str) -> None:
        """Calls of pip whose arguments match `when` print `text` and fail, until `let_pip_work`."""
        (self.root / "pip_fails").write_text(f"{when}\n{text}\n", encoding="utf-8")

    def let_pip_work(self) -> None:
        (self.root / "pip_fails").unlink()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    if os.name == "nt":
        pytest.skip("the fake Python is a shell script")
    root = (tmp_path / "a folder").resolve()
    shutil.copytree(
        ROOT / "studio" / "launcher", root / "studio" / "launcher", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "studio" / "__init__.py", root / "studio")
    shutil.copy(ROOT / "launch.py", root)
    (root / "requirements").mkdir()
    for name in ("installer", "runtime", "test"):
        (root / "requirements" / f"{name}.lock").write_text("thing==1.0 \\\n    --hash=sha256:0\n", encoding="utf-8")
    (root / "pyproject.toml").write_text("[project]\n", encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STUDIO_", "PIP_", "PYTHON"))}
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    tree = Tree(root, environ={**kept, **nowhere, "no_proxy": "", "PYTHONDONTWRITEBYTECODE": "1"})
    tree.make_environment()
    return tree
