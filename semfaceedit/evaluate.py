"""Measure a checkpoint: `python -m semfaceedit.evaluate`.

This file is the command: which questions, in which order, and the report. Each question is a file
of `evaluation/`.
"""

import sys
from collections.abc import Sequence
from itertools import takewhile

from .cli import run_command
from .evaluation import ablation
from .evaluation.run import evaluate
from .evaluation.session import EvaluateOptions


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["ablate"]:
        return ablation.main(arguments[1:])
    questions = tuple(takewhile(lambda text: not text.startswith("-"), arguments))
    return run_command(
        EvaluateOptions,
        lambda options: evaluate(options, questions),
        arguments[len(questions) :],
        name="evaluate",
    )


if __name__ == "__main__":
    raise SystemExit(main())
