"""What a backbone is: a model that turns a batch, and extra vectors, into logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from reki_feast.models.data import Batch
from reki_feast.models.inputs import Embedded, InputLayer, InputSpec

#: Builds a model for samples of a given look. The model is any :class:`torch.nn.Module` that is
#: called with a batch and a sequence of extra vectors, and gives a logit for each label.
Factory = Callable[[InputSpec], nn.Module]


class Backbone(nn.Module):
    """A model over the shared input layer; what it makes of the inputs is in :meth:`logits`.

    Args:
        spec: what samples look like.
        size: d, floats of an embedding.
    """

    def __init__(self, spec: InputSpec, *, size: int = 32) -> None:
        super().__init__()
        self.inputs = InputLayer(spec, size=size)

    def forward(self, batch: Batch, extras: Sequence[Tensor] = ()) -> Tensor:
        """Logits ``[n]`` (or ``[n, c]`` of lists) of a batch.

        Args:
            batch: n samples or lists.
            extras: extra vectors, ``[n, size]`` (or ``[n, c, size]``) each, as the spec says.
        """
        return self.logits(self.inputs(batch, extras))

    def logits(self, embedded: Embedded) -> Tensor:
        """Logits of an embedded batch."""
        raise NotImplementedError
