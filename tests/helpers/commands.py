"""The options of every command."""

import importlib

from semfaceedit.__main__ import COMMANDS
from semfaceedit.evaluation.ablation import AblationOptions
from semfaceedit.evaluation.session import EvaluateOptions


def _options_of(command: str) -> type:
    module = importlib.import_module(f"semfaceedit.{command.replace('-', '_')}")
    return next(
        value
        for name, value in vars(module).items()
        if name.endswith("Options") and value.__module__ == module.__name__
    )


OPTIONS = {
    **{name: _options_of(name) for name in COMMANDS if name != "evaluate"},
    "evaluate": EvaluateOptions,
    "evaluate ablate": AblationOptions,
}
