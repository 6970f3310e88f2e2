"""What is installed and what can run: `python -m semfaceedit.info`."""

from dataclasses import dataclass
from typing import Annotated

from .cli import print_json, run_command
from .machine import collect
from .model import config
from .usage import With


@dataclass(kw_only=True)
class InfoOptions:
    """Show versions, available backends (and why others are missing) and parameter counts.

    Example: semfaceedit info --preset paper --json
    """

    preset: Annotated[str, With("json")] = "paper"
    """With --json: preset to count as `generator_parameters`."""
    json: bool = False
    """Print one JSON object."""


def run(options: InfoOptions) -> None:
    config.preset(options.preset)
    facts = collect(options.preset)
    if options.json:
        print_json(facts)
        return
    print(f"semfaceedit {facts['version']}")
    for name, value in facts["machine"].items():
        print(f"  {name:<16}{value if value is not None else 'none'}")
    print("backends")
    for name, backend in facts["backends"].items():
        ready = [op for op, there in backend["ops"].items() if there]
        some = f"available for {', '.join(ready)}; " if ready else ""
        print(f"  {name:<16}{'available' if backend['available'] else some + backend['reason']}")
    print("cuda runs film_siren by")
    for name, body in facts["cuda_bodies"].items():
        print(f"  {name:<16}{body['by']}: {body['reason'] or 'runs here'}")
    print("ops on CPU tensors run with")
    for op, choice in facts["cpu_choice"].items():
        print(f"  {op:<20}{choice}")
        for precision, reason in facts["cpu_precisions"].get(op, {}).items():
            if reason is not None:
                print(f"  {'':<20}not {precision}: {reason}")
    print("generator parameters")
    for name, count in facts["parameters"].items():
        print(f"  {name:<16}{count:>12,}")


def main(argv: list[str] | None = None) -> int:
    return run_command(InfoOptions, run, argv, name="info")


if __name__ == "__main__":
    raise SystemExit(main())
