"""What the program never does: run code from files, run a shell, install anything while it runs."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

import pytest

from tests.architecture.source import imported, modules, unit

CODE_FROM_FILES = {"pickle", "_pickle", "cPickle", "shelve", "marshal", "dill", "cloudpickle", "joblib", "pip"}


def dotted(node: ast.expr) -> str:
    """`torch.load` for the expression of that form; what is before it, a call say, becomes `?`."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else "?"


def argument(call: ast.Call, name: str) -> object:
    """The constant given for the keyword `name`; None when it is not given, `...` when it is computed."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value.value if isinstance(keyword.value, ast.Constant) else ...
    return None


def last(call: ast.Call) -> str:
    return dotted(call.func).split(".")[-1]


RULES: dict[str, Callable[[ast.Call], bool]] = {
    "torch.load with weights_only=True only": lambda call: (
        dotted(call.func) == "torch.load" and argument(call, "weights_only") is not True
    ),
    "no torch.hub, torch.jit.load, torch.package": lambda call: dotted(call.func).startswith(
        ("torch.hub.", "torch.jit.load", "torch.package.")
    ),
    "no eval, exec, compile, __import__": lambda call: (
        dotted(call.func) in {"eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec"}
    ),
    "no numpy pickles": lambda call: argument(call, "allow_pickle") not in (None, False),
    "yaml.safe_load only": lambda call: dotted(call.func) in {"yaml.load", "yaml.unsafe_load", "yaml.full_load"},
    "no shell": lambda call: (
        argument(call, "shell") not in (None, False)
        or dotted(call.func) in {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
    ),
    "no code from model folders": lambda call: argument(call, "trust_remote_code") not in (None, False),
    "no from_single_file without config": lambda call: (
        last(call) == "from_single_file" and not any(keyword.arg in ("config", None) for keyword in call.keywords)
    ),
}

BREAKING = {
    "torch.load with weights_only=True only": [
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "torch.load(f, weights_only=x)",
    ],
    "no torch.hub, torch.jit.load, torch.package": ["torch.hub.load('a/b', 'c')", "torch.jit.load(f)"],
    "no eval, exec, compile, __import__": ["eval(x)", "exec(x)", "__import__(x)", "compile(x, '', 'exec')"],
    "no numpy pickles": ["np.load(f, allow_pickle=True)", "np.load(f, allow_pickle=x)"],
    "yaml.safe_load only": ["yaml.load(f)"],
    "no shell": ["subprocess.run('ls', shell=True)", "os.system('ls')", "subprocess.Popen('ls', shell=x)"],
    "no code from model folders": ["f(trust_remote_code=True)"],
    "no from_single_file without config": ["Pipeline.from_single_file(f)"],
}
FINE = [
    "torch.load(f, weights_only=True)",
    "re.compile(x)",
    "model.eval()",
    "np.load(f, allow_pickle=False)",
    "subprocess.run(['ls'], shell=False)",
    "Pipeline.from_single_file(f, config=folder)",
]


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


@pytest.mark.parametrize("rule", RULES)
def test_the_program_keeps_to(rule: str) -> None:
    wrong = [f"{path}:{call.lineno}" for path, tree in modules().items() for call in calls(tree) if RULES[rule](call)]
    assert wrong == []


@pytest.mark.parametrize("rule, code", [(rule, code) for rule, codes in BREAKING.items() for code in codes])
def test_the_rule_sees(rule: str, code: str) -> None:
    assert any(RULES[rule](call) for call in calls(ast.parse(code)))


@pytest.mark.parametrize("code", FINE)
def test_no_rule_minds(code: str) -> None:
    assert not any(rule(call) for call in calls(ast.parse(code)) for rule in RULES.values())


def test_pickled_files_are_opened_in_one_place() -> None:
    found = [path for path, tree in modules().items() for call in calls(tree) if dotted(call.func) == "torch.load"]
    assert found == ["studio/conversion/unpickling.py"]


def test_no_module_that_runs_code_from_files_is_imported() -> None:
    found = [
        f"{path}:{line} {name}"
        for path, tree in modules().items()
        for name, line in imported(tree)
        if name.split(".")[0] in CODE_FROM_FILES
    ]
    assert found == []


def test_nothing_is_installed_or_fetched_while_the_program_runs() -> None:
    """No list of words for a process starts with, or runs as a module, pip or git. The launcher runs before the program."""
    words = {"pip", "pip3", "uv", "git", "curl", "wget"}
    found = [
        f"{path}:{node.lineno}"
        for path, tree in modules().items()
        if unit(path) != "launcher"
        for node in ast.walk(tree)
        if isinstance(node, ast.List | ast.Tuple)
        and {item.value for item in node.elts[:3] if isinstance(item, ast.Constant)} & words
    ]
    assert found == []
