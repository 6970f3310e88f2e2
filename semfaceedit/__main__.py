"""`semfaceedit COMMAND ...` and `python -m semfaceedit COMMAND ...`."""

import importlib
import sys

from .waiting import wait_briefly

COMMANDS = {
    "train": "train a generator in two stages",
    "synthesize": "make procedural faces in the CelebAMask-HQ layout",
    "prepare": "align and pack photographs with label maps",
    "train-parser": "train a network that reads label maps off photographs",
    "parse": "read the label maps of photographs",
    "render": "render faces of a checkpoint from several poses",
    "invert": "fit a photograph with its label map",
    "edit": "change a face through its label map",
    "transfer": "give a face the shape or look of another's region",
    "editor": "edit faces on a web page, served to this machine alone",
    "gallery": "a page of figures of what a checkpoint can do",
    "evaluate": "measure a checkpoint; train and compare the ablations",
    "profile": "time the render stage by stage",
    "export": "write a run's weights and discriminators as files to share",
    "info": "versions, backends and parameter counts",
}


def main() -> int:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: semfaceedit COMMAND [options]\n\ncommands:")
        for name, what in COMMANDS.items():
            print(f"  {name:<14}{what}")
        print("\nsemfaceedit COMMAND --help shows a command's options.")
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        print(
            f"semfaceedit: error: no command {name!r}: use one of {', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    wait_briefly()
    return importlib.import_module(f".{name.replace('-', '_')}", __package__).main(arguments[1:])


if __name__ == "__main__":
    raise SystemExit(main())
