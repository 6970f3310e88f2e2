"""The faces in a folder: saved ones, and autosaves of those that nobody saved."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
import time
from dataclasses import replace
from pathlib import Path
from weakref import WeakSet

import numpy as np

from ..data.decoding import save_label_map
from ..editing.project import FaceProject
from ..editing.refit import render_project
from ..errors import UserError
from ..model.generator import Generator
from ..pictures.grids import picture_rows

MOST_NAME = 200  # bytes; a file's name with all that is put around it may have 255
THUMBNAIL = 64  # pixels along an edge, at most
AUTOSAVE = "autosave-"  # how the names of faces begin that nobody saved


class SavedFaces:
    """The face projects of a folder.

    recovered: the name of a face that an earlier session kept and nobody saved, or "".
    """

    def __init__(self, out: Path, generator: Generator):
        self.out, self.generator = out, generator
        newest = next(iter(self.names()), "")
        self.recovered = newest if newest.startswith(AUTOSAVE) else ""
        self._started = time.strftime("%Y%m%d-%H%M%S")
        self._safe: WeakSet[FaceProject] = WeakSet()  # in a file of its own, or a seed as it is
        self._autosaved: dict[Path, FaceProject] = {}
        self._lock = threading.Lock()  # several threads may save

    def mark_safe(self, face: FaceProject) -> None:
        """No autosave of this face is needed: it can be had again."""
        self._safe.add(face)

    def names(self) -> list[str]:
        """Names of the face projects in the folder, the newest first."""
        found = []
        for path in self.out.glob("*.safetensors"):
            # Removed meanwhile, a link to nothing, or a name that is no text.
            with contextlib.suppress(OSError, UnicodeEncodeError):
                status, _ = path.stat(), path.name.encode()
                if stat.S_ISREG(status.st_mode) and not path.name.startswith("tuned-"):
                    found.append((status.st_mtime, path.stem))
        return [name for _, name in sorted(found, reverse=True)]

    def file(self, name: str) -> Path:
        """The file of a face project of the folder."""
        if name not in self.names():
            raise UserError(f"there is no face {name!r} in {self.out}: save one first")
        return self.out / f"{name}.safetensors"

    def save(self, face: FaceProject, name: str) -> Path:
        """Write a face and its label map under a name that is free; an autosave of it goes."""
        name = name.strip().removesuffix(".safetensors")
        if not re.fullmatch(r"\w[\w .-]{0,79}", name) or name.startswith("tuned-"):
            raise UserError(
                f"{name!r} is not a name for a face: use letters, digits, spaces, dots and dashes"
            )
        if len(name.encode()) > MOST_NAME:
            raise UserError(f"{name!r} is too long for a file: use fewer letters")
        with self._lock:
            return self._save(face, name)

    def _save(self, face: FaceProject, name: str) -> Path:
        path, number = self.out / f"{name}.safetensors", 1
        while any(os.path.lexists(taken) for taken in _files(path)):
            number += 1
            path = self.out / f"{name}-{number}.safetensors"
        try:
            self._write(face, path)
        except BaseException:  # a full disk: not half of it is left
            _remove(path)
            raise
        self._safe.add(face)
        for kept, project in tuple(self._autosaved.items()):
            if project in self._safe:
                _remove(kept)
                del self._autosaved[kept]
        return path

    def autosave(self, face: FaceProject, root: int) -> Path | None:
        """Keep a face in a file of this session, which is given back.

        Each face that was chosen, opened or found, a `root`, has its own, with all that was made of
        it. None where there is nothing to lose: a face in a file of its own, or a seed's as it is.
        """
        if face in self._safe:
            return None
        path = self.out / f"{AUTOSAVE}{self._started}-{root}.safetensors"
        with self._lock:
            if face is not self._autosaved.get(path):
                self._write(face, path)
                self._autosaved[path] = face
        return path

    def thumbnail(self, name: str) -> np.ndarray:
        """A small picture of a face project of the folder, (h, h, 3) uint8."""
        preview = FaceProject.load(self.file(name)).preview
        return preview[:: -(-len(preview) // THUMBNAIL), :: -(-len(preview) // THUMBNAIL)]

    def _write(self, face: FaceProject, path: Path) -> None:
        """The face, and its label map beside it."""
        output = render_project(self.generator, face, self.generator.config.resolution)
        self.out.mkdir(parents=True, exist_ok=True)
        project, labels = _files(path)
        replace(face, preview=picture_rows(output)["image"][0].numpy()).save(project)
        save_label_map(labels, face.labels)


def _files(project: Path) -> tuple[Path, Path]:
    """Where a face is written: the project, and the label map beside it."""
    return project, project.with_suffix(".labels.png")


def _remove(project: Path) -> None:
    for path in _files(project):
        path.unlink(missing_ok=True)
