"""Which encoder a project keeps to: the declared one, or as an earlier version read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import reki_feast
from reki_feast.errors import LakeError
from reki_feast.project import DeclaredProject
from reki_feast.report import Bar
from reki_feast.schema import KINDS, content_hash
from reki_feast.stages.snapshots import times

if TYPE_CHECKING:
    from reki_feast.encoding import Floats, TextEncoder

REPRESENTATIONS = tuple(f"{kind}_representation" for kind in KINDS)
#: Files of a model's folder that say how it reads texts.
_CONFIGS = ("modules.json", "*config*.json", "*/*config*.json")


class RenamedEncoderError(Exception):
    """The declared encoder has another name than the remembered one."""


class RememberedEncoder:
    """The declared encoder under a remembered name: it is loaded for the first new text.

    Args:
        name: the remembered name.
        make: makes the encoder.
    """

    def __init__(self, name: str, make: Callable[[], TextEncoder]) -> None:
        self.name, self._make = name, make

    def __reduce__(self) -> tuple[Any, ...]:
        return RememberedEncoder, (self.name, partial(_itself, self._make()))

    @property
    def dimension(self) -> int:
        """Length m of a vector."""
        return self._loaded.dimension

    def encode(self, texts: list[str]) -> Floats:
        """Encode texts to float32 ``[n, m]``.

        Raises:
            RenamedEncoderError: the encoder has another name today.
            EncodeError: the model cannot be loaded or used.
        """
        if self._loaded.name != self.name:
            raise RenamedEncoderError(self._loaded.name)
        return self._loaded.encode(texts)

    @cached_property
    def _loaded(self) -> TextEncoder:
        return self._make()


def _itself(encoder: TextEncoder) -> TextEncoder:
    return encoder


@dataclass(frozen=True)
class EncoderChoice:
    """The encoder of a command.

    Attributes:
        encoder: whose vectors the project keeps to.
        own: name of the declared encoder, where the vectors of an earlier version are kept.
        outdated: name of the stored vectors' encoder, where all are encoded anew.
        declared: hash of the declaration that gives the encoder its name; empty where it is kept.
    """

    encoder: TextEncoder
    own: str = ""
    outdated: str = ""
    declared: str = ""

    @property
    def notes(self) -> list[str]:
        """What the user should know of it."""
        name = self.encoder.name
        renewed = (
            f"encoded anew: {self.outdated} made the stored vectors, the model's own are {name}; "
            "HEIN and scores are to be trained anew, and then the models that read them"
        )
        kept = (
            f"vectors stay as an earlier version made them, {name}, since trained weights read "
            f"them; the model's own are {self.own}: `reki run --retrain` makes all anew, "
            'Encoder(pooling="mean") keeps them for good'
        )
        return [*([renewed] if self.outdated else []), *([kept] if self.own else [])]


def choose(
    project: DeclaredProject, bar: Bar, *, retrain: bool, remembered: bool = True
) -> EncoderChoice:
    """The encoder, not loaded where its name is remembered.

    Args:
        project: the project.
        bar: shows how many texts are encoded.
        retrain: all stored vectors may be made anew.
        remembered: whether the name of ``encoder.json`` may stand for the declared encoder's.

    Raises:
        EncodeError: the encoder cannot be loaded.
        LakeError: the stored vectors are another encoder's.
    """
    stored, declared = project.lake.read_json("encoder") or {}, declaration_hash(project)
    is_local = project.declared.encoder.provider == "local"  # others have a name before they load
    if remembered and is_local and stored.get("declared") == declared:
        encoder = RememberedEncoder(stored["name"], lambda: project.encoder(bar))
        return EncoderChoice(encoder, declared=declared)
    loaded = project.encoder(bar)
    outdated = _outdated(project, loaded.name)
    if outdated and not retrain and project.lake.read_json("hein") is not None:
        return EncoderChoice(project.encoder(bar, pooling="mean"), own=loaded.name)
    return EncoderChoice(loaded, outdated=outdated, declared=declared)


def remember(project: DeclaredProject, choice: EncoderChoice, renewing: list[datetime]) -> None:
    """Store whose vectors the project keeps to, and the times that are still to be made of them."""
    _store(project, choice.encoder.name, renewing, choice.declared)


def times_to_renew(
    project: DeclaredProject, choice: EncoderChoice, *, all_of_them: bool
) -> list[datetime]:
    """The times whose rows are made anew: all, or those that an interrupted run left."""
    left = (project.lake.read_json("encoder") or {}).get("anew", ())
    stored = times(project, *REPRESENTATIONS) if choice.outdated or all_of_them else ()
    return sorted({*(datetime.fromisoformat(text) for text in left), *stored})


def start_anew(project: DeclaredProject, choice: EncoderChoice, renewing: list[datetime]) -> None:
    """Drop what was made of an earlier version's vectors, or by another projection."""
    _store(project, choice.outdated or choice.encoder.name, renewing, "")
    project.lake.forget("hein.json", "match.safetensors")
    for table in REPRESENTATIONS:
        project.lake.replace(table, [])


def _store(project: DeclaredProject, name: str, renewing: list[datetime], declared: str) -> None:
    left = {"anew": [time.isoformat() for time in renewing]} if renewing else {}
    known: dict[str, Any] = {}
    if declared:
        known = {"declared": declared, "declaration": project.declared.encoder.model_dump()}
    project.lake.write_json("encoder", {"name": name, **left, **known})


def declaration_hash(project: DeclaredProject) -> str:
    """Hash of what gives the declared encoder its name, without loading it."""
    encoder = project.declared.encoder
    how: list[object] = [encoder.pooling, encoder.prompt, encoder.max_tokens]
    how += [] if encoder.backend == "torch" else [encoder.backend]
    if encoder.provider != "local":
        how += [encoder.provider, encoder.dimensions, sorted((encoder.extra_body or {}).items())]
    options = map(repr, how)
    folder = Path(encoder.model)
    configs = [path for pattern in _CONFIGS for path in sorted(folder.glob(pattern))]
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in configs]
    return content_hash(reki_feast.__version__, encoder.model, *options, *texts)


def _outdated(project: DeclaredProject, name: str) -> str:
    """What an earlier version called the declared encoder, where the stored vectors are of that.

    Vectors of two encoders have nothing in common: one project keeps to one.
    """
    stored = (project.lake.read_json("encoder") or {}).get("name", name)
    if stored == name or not any(project.lake.parts(table) for table in REPRESENTATIONS):
        return ""
    if stored == _former_name(project):
        return str(stored)
    raise LakeError(
        "the vectors of a scenario are made by one encoder",
        detail=f"{stored} made the stored ones, {name} is declared",
        hint="declare the old one again; or `reki run --retrain`, which makes another space with "
        "the new one",
    )


def _former_name(project: DeclaredProject) -> str:
    """Earlier versions pooled the first module's tokens, by their mean unless said, and no more."""
    encoder = project.declared.encoder
    limit = "" if encoder.max_tokens is None else f"/{encoder.max_tokens}"
    if encoder.prompt is not None or encoder.backend != "torch" or encoder.provider != "local":
        return ""
    return f"{encoder.model}/{encoder.pooling or 'mean'}{limit}"
