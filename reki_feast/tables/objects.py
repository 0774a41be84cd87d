"""Files beside the tables of a scenario: JSON objects, arrays, the weights; and their folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from reki_feast import files
from reki_feast.errors import LakeError, Problem
from reki_feast.permissions import OWNER, Rights, make_folder, tighten
from reki_feast.schema import MANIFEST_VERSION
from reki_feast.tables import weights
from reki_feast.tables.weights import Stored, Weights
from reki_feast.views.spaces import FIRST, VectorSpace

_log = logging.getLogger(__name__)

#: The commands that make the objects, and of all others.
_MAKERS = {"manifest": "reki publish", "hein": "reki train --retrain"}
_RUN = "reki run"


class StoredObjects:
    """JSON objects, arrays and weights of one scenario in one folder.

    Args:
        root: the folder; made when something is written.
        rights: who may read and write what is stored.
        space: whose vectors, weights and representations are meant.
    """

    def __init__(
        self, root: Path, rights: Rights = OWNER, space: VectorSpace | None = None
    ) -> None:
        self.root, self.rights, self.space = root, rights, space or FIRST
        self._is_claimed = False

    def folder_of(self, name: str) -> Path:
        """The folder that has a table or an object: the space's, its encoder's, or that of all."""
        return self.root / self.space.folder(name)

    def claim(self) -> None:
        """Make the folder ready to be written, once: what killed writers left goes.

        A folder, or file, that others can read beyond what is declared is taken from them, and a
        warning logged.

        Raises:
            LakeError: the folder cannot be made, or the declared group is none of this user's.
        """
        if self._is_claimed:
            return
        try:
            make_folder(self.folder_of("hein"), self.rights)
            files.sweep_all(self.root)
            opened = tighten(self.root, self.rights)
        except OSError as error:
            raise LakeError(files.unwritable(self.root, error)) from error
        if opened:
            also = f" and {len(opened) - 1:,} more" if len(opened) > 1 else ""
            said = "others could read %s%s; they no longer can"
            _log.warning(f"{said}: see Privacy(group=…, umask=…)", opened[0], also)
        self._is_claimed = True

    def check(self) -> None:
        """See that what stands beside the tables can be read: objects, arrays, the weights.

        Of arrays other than the weights the beginning and the length are looked at.

        Raises:
            LakeError: with all faults.
        """
        folders = [self.root, self.folder_of("encoder"), self.folder_of("hein")]
        objects = sorted({path.stem for folder in folders for path in folder.glob("*.json")})
        looks: list[Callable[[], object]] = [partial(self.read_json, one) for one in objects]
        arrays = sorted(self.root.rglob("*.safetensors"))
        others = [path for path in arrays if not path.name.startswith("hein")]
        looks += [partial(files.check_tensors, path) for path in others]
        faults: list[Problem] = []
        for look in [*looks, self.weights]:
            try:
                look()
            except LakeError as error:
                faults += error.problems
        if faults:
            raise LakeError(list(dict.fromkeys(faults)))

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A small JSON object beside the tables, ``manifest`` for what was published last.

        Raises:
            LakeError: the file is damaged or of another version.
        """
        maker = _MAKERS.get(name, _RUN)
        return files.read_json(self.folder_of(name) / f"{name}.json", MANIFEST_VERSION, maker)

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Replace a JSON object in one step."""
        self.claim()
        path = self.folder_of(name) / f"{name}.json"
        files.write_json(path, {"version": MANIFEST_VERSION, **value})

    def write_tensors(self, path: Path, tensors: files.Tensors, about: Any) -> None:
        """Write arrays, and JSON-able data about them, to a file in this folder, in one step.

        Raises:
            LakeError: the folder cannot be written.
        """
        self.claim()
        files.write_tensors(path, tensors, about)

    def forget(self, *names: str) -> None:
        """Remove files that stand beside the tables; what is not there is no fault."""
        for name in names:
            (self.folder_of(Path(name).stem) / name).unlink(missing_ok=True)

    def write_weights(
        self,
        named: Mapping[str, Weights],
        manifest: Mapping[str, Any],
        backbones: tuple[files.Tensors, Any] | None = None,
    ) -> None:
        """Store weights, and ``hein.json`` that names them; all change in one step.

        Args:
            named: arrays by name.
            manifest: what belongs to them.
            backbones: recommenders that they were trained with, as arrays and JSON-able data.

        Raises:
            LakeError: the folder cannot be written; what was stored stands.
        """
        self.claim()
        folder = self.folder_of("hein")
        said = {"digest": weights.write(folder, named), **manifest}
        if backbones is not None:
            said[weights.BACKBONES] = weights.write_backbones(folder, *backbones)
        self.write_json("hein", said)
        weights.remove_others(folder, said)

    def backbones(self) -> tuple[files.Tensors, Any] | None:
        """The recommenders that the weights were trained with; None of an earlier version's.

        Raises:
            LakeError: their file is missing or damaged.
        """
        digest = (self.read_json("hein") or {}).get(weights.BACKBONES)
        return weights.read_backbones(self.folder_of("hein"), digest) if digest else None

    def write_backbones(self, arrays: files.Tensors, about: Any) -> None:
        """Store the recommenders anew beside weights that stay."""
        folder, said = self.folder_of("hein"), self.read_json("hein") or {}
        said[weights.BACKBONES] = weights.write_backbones(folder, arrays, about)
        self.write_json("hein", said)
        weights.remove_others(folder, said)

    def weights(self) -> Stored | None:
        """The stored weights and their manifest, None before the first training.

        Raises:
            LakeError: the weights are not those that the manifest names, or cannot be read.
        """
        return weights.read(self.folder_of("hein"), partial(self.read_json, "hein"))
