"""`semfaceedit COMMAND ...` and `python -m semfaceedit COMMAND ...`."""

import importlib
import sys

from .errors import meant
from .waiting import wait_briefly

COMMANDS = {
    "train": "train a generator in two stages",
    "synthesize": "write procedural faces in the CelebAMask-HQ layout",
    "prepare": "align and pack photographs with label maps",
    "train-parser": "train a network that predicts label maps of photographs",
    "train-encoder": "train a network from whose reading of a face inversion starts",
    "find-directions": "find the sliders of a checkpoint, such as mouth opening",
    "parse": "predict the label maps of photographs",
    "render": "render generated or edited faces: pictures, maps, video",
    "invert": "turn a photograph and its label map into an editable face",
    "edit": "change a face by editing its label map",
    "transfer": "copy the shape or look of a region from another face",
    "editor": "edit faces in the browser, on localhost",
    "gallery": "make a page of figures that shows what a checkpoint can do",
    "evaluate": "measure a checkpoint; `evaluate ablate` trains the ablations",
    "profile": "time a render stage by stage",
    "export": "write the weights of a run to share, or a face for browsers and 3-D programs",
    "info": "show versions, backends and parameter counts",
}


def main() -> int:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: semfaceedit COMMAND [options]\n\ncommands:")
        for name, what in COMMANDS.items():
            print(f"  {name:<16}{what}")
        print("\nsemfaceedit COMMAND --help shows a command's options.")
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        print(
            f"semfaceedit: error: no command {name!r}{meant(name, COMMANDS)}: use one of "
            f"{', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    wait_briefly()
    try:
        command = importlib.import_module(f".{name.replace('-', '_')}", __package__)
        return command.main(arguments[1:])
    except KeyboardInterrupt:  # while modules are read
        print(f"semfaceedit {name}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
