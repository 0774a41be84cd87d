"""A transformer in 8-bit integers, weights and activations, by OpenVINO.

Activations are quantized by ranges that they have on a sample of texts (post-training
quantization, by NNCF). The quantized model is what an encoder's vectors come from: it is made once,
stored, and named by its digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reki_feast.encoding.parts import ModelParts
from reki_feast.errors import EncodeError, MissingExtraError

if TYPE_CHECKING:
    from reki_feast.encoding.windows import WindowedTransformer

#: Texts that ranges are measured on, at most, and tokens of each.
CALIBRATED_ON, _TOKENS = 128, 128
_FORMAT = 1
_FILES = ("model.xml", "model.bin")

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class QuantizedModel:
    """A quantized transformer, as OpenVINO writes it.

    Attributes:
        graph: its operations, XML.
        weights: its constants, ranges of activations among them.
        texts: how many texts the ranges were measured on.
    """

    graph: Bytes
    weights: Bytes
    texts: int

    @cached_property
    def id(self) -> str:
        """Tells it from every other one."""
        digest = hashlib.blake2b(digest_size=4)
        for part in (self.graph, self.weights):
            digest.update(part.tobytes())
        return f"int8-{digest.hexdigest()}"

    def tensors(self) -> dict[str, Bytes]:
        """Its arrays by name."""
        return {"graph": self.graph, "weights": self.weights}

    def manifest(self) -> dict[str, Any]:
        """JSON-able data about it."""
        return {"format": _FORMAT, "texts": self.texts}

    @classmethod
    def of(cls, tensors: Mapping[str, Bytes], about: Mapping[str, Any]) -> QuantizedModel:
        """Of :meth:`tensors` and :meth:`manifest`.

        Raises:
            EncodeError: they are of another format.
        """
        if about.get("format") != _FORMAT or not {"graph", "weights"} <= tensors.keys():
            raise EncodeError(
                f"the stored int8 model is of format {_FORMAT}",
                detail=f"format {about.get('format')!r}",
                hint="reki run --retrain, which makes another one in a space of its own",
            )
        return cls(tensors["graph"], tensors["weights"], about["texts"])


def quantize(
    parts: ModelParts, reader: WindowedTransformer, texts: Sequence[str]
) -> QuantizedModel:
    """Quantize a model's transformer by texts of the kind that it is to encode.

    Args:
        parts: of the model.
        reader: cuts the texts into tokens.
        texts: a sample.

    Raises:
        MissingExtraError: OpenVINO or NNCF is not installed.
        EncodeError: there are no texts, or the transformer cannot be converted.
    """
    if not texts:
        rule = "an int8 model is calibrated on texts"
        raise EncodeError(rule, detail="there are none", hint='leave backend="int8" out')
    openvino, nncf = _imported("openvino"), _imported("nncf")
    rows = [reader.features(text, _TOKENS) for text in texts[:CALIBRATED_ON]]
    try:
        with _quiet():
            model = openvino.convert_model(
                _traceable(parts, rows[0]), example_input=_torch(rows[0])
            )
            for port, name in zip(model.inputs, rows[0], strict=True):
                port.get_tensor().set_names({name})
            made = nncf.quantize(
                model,
                nncf.Dataset(rows),
                model_type=nncf.ModelType.TRANSFORMER,
                preset=nncf.QuantizationPreset.PERFORMANCE,
                subset_size=len(rows),
            )
            return QuantizedModel(*_written(openvino, made), len(rows))
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise EncodeError(
            'Encoder(backend="int8") is for transformers that OpenVINO converts',
            detail=" ".join(str(error).split())[:300],
            hint='backend="bf16", or leave it out',
        ) from error


class Int8Transformer:
    """The quantized transformer in the place of a model's first module.

    Args:
        model: the quantized model.

    Attributes:
        streams: batches that are computed side by side, one a core.
    """

    def __init__(self, model: QuantizedModel) -> None:
        import threading

        openvino = _imported("openvino")
        core = openvino.Core()
        self.streams = _cpus()
        self._compiled = core.compile_model(
            core.read_model(model.graph.tobytes(), openvino.Tensor(model.weights)),
            "CPU",
            {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": self.streams},
        )
        self._inputs = [one.any_name for one in self._compiled.inputs]
        self._local = threading.local()

    def __call__(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """Add vectors ``[n, t, h]`` of the tokens."""
        import torch

        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        given = {name: features[name].numpy() for name in self._inputs}
        found = self._local.request.infer(given, share_inputs=True, share_outputs=False)
        return {**features, "token_embeddings": torch.from_numpy(next(iter(found.values())))}


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _traceable(parts: ModelParts, row: Mapping[str, Any]) -> Any:
    """The transformer as a module from token ids to their vectors."""
    import torch

    transformer, names = parts.modules[0].auto_model, list(row)

    class Tokens(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = transformer.float().eval()

        def forward(self, *given: Any) -> Any:
            return self.inner(**dict(zip(names, given, strict=True))).last_hidden_state

    return Tokens()


def _torch(row: Mapping[str, npt.NDArray[np.int64]]) -> tuple[Any, ...]:
    import torch

    return tuple(torch.from_numpy(column) for column in row.values())


def _written(openvino: Any, model: Any) -> tuple[Bytes, Bytes]:
    with TemporaryDirectory(prefix="reki-int8-") as folder:
        paths = [Path(folder) / name for name in _FILES]
        openvino.save_model(model, paths[0], compress_to_fp16=False)
        graph, weights = (np.frombuffer(path.read_bytes(), np.uint8) for path in paths)
        return graph, weights


def _imported(name: str) -> Any:
    """OpenVINO or NNCF, which send nothing home."""
    from importlib import import_module

    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if not there
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            'Encoder(backend="int8") needs OpenVINO and NNCF',
            detail=str(error),
            hint='pip install "reki-feast[openvino]"',
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave out progress bars and warnings of the libraries."""
    import warnings

    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
