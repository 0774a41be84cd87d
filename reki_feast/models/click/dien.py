"""DIEN, the deep interest evolution network (arXiv 1809.03672)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from reki_feast.models.click.base import ClickModel
from reki_feast.models.inputs import Embedded, InputSpec
from reki_feast.models.layers import Activation

#: How attention steers the evolution: it scales the update gate, is the update gate, or scales
#: the inputs (AUGRU, AGRU and AIGRU of the paper).
Steering = Literal["augru", "agru", "aigru"]


class SteeredGru(nn.Module):
    """A GRU whose update gate is scaled step by step; a step scaled by 0 changes nothing.

    Args:
        input_size: floats of an input.
        size: s, floats of the state.
        gated: whether there is an update gate to scale; without one the scale is the gate.
    """

    def __init__(self, *, input_size: int, size: int, gated: bool = True) -> None:
        super().__init__()
        self.size = size
        self.gated = gated
        gates = 2 if gated else 1
        #: Reset gate, update gate and candidate, one above the other.
        self.input = nn.Linear(input_size, (gates + 1) * size)
        self.gates = nn.Linear(size, gates * size, bias=False)
        self.candidate = nn.Linear(size, size, bias=False)

    def forward(self, inputs: Tensor, scale: Tensor) -> list[Tensor]:
        """Inputs ``[n, l, input_size]`` and their scales ``[n, l]`` to l states ``[n, s]``."""
        # What depends on the inputs alone is one product for all steps.
        known = self.input(inputs.transpose(0, 1))
        gates, candidates = known.split([known.shape[-1] - self.size, self.size], dim=-1)
        state = inputs.new_zeros(len(inputs), self.size)
        states = []
        steps = zip(gates, candidates, scale.t().unsqueeze(-1), strict=True)
        for gate, candidate, update in steps:
            reset, *own = torch.sigmoid(gate + self.gates(state)).split(self.size, dim=-1)
            new = torch.tanh(torch.addcmul(candidate, reset, self.candidate(state)))
            state = torch.lerp(state, new, update * own[0] if self.gated else update)
            states.append(state)
        return states


class InterestEvolution(nn.Module):
    """The interest in the target at the end of the history: the paper's interest evolving layer.

    Args:
        size: s, floats of an interest.
        target_size: floats of the target.
        steering: how attention steers the GRU.
    """

    def __init__(self, *, size: int, target_size: int, steering: Steering = "augru") -> None:
        super().__init__()
        self.steering = steering
        self.attention = nn.Linear(target_size, size, bias=False)
        self.gru = SteeredGru(input_size=size, size=size, gated=steering != "agru")

    def weights(self, interests: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """``[n, l]``: attention; it adds up to 1 over the behaviours there are."""
        scores = torch.einsum("nls,ns->nl", interests, self.attention(target))
        # Finite, for histories where nothing is: their weights are made 0 by the product.
        return scores.masked_fill(mask == 0, -1e9).softmax(-1) * mask

    def forward(self, interests: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Interests ``[n, l, s]``, target ``[n, target_size]``, mask ``[n, l]`` to ``[n, s]``."""
        weights = self.weights(interests, target, mask)
        scaled = self.steering == "aigru"
        inputs = interests * weights.unsqueeze(-1) if scaled else interests
        states: list[Tensor] = self.gru(inputs, mask if scaled else weights)
        return states[-1]


class NextBehaviour(nn.Module):
    """The auxiliary loss: how badly interests tell the next behaviour from another one.

    The other one is drawn from all behaviours of the batch. Behaviours are brought to the size of
    interests for the inner product.

    Args:
        size: s, floats of an interest.
        behaviour_size: b, floats of a behaviour.
    """

    def __init__(self, *, size: int, behaviour_size: int) -> None:
        super().__init__()
        self.behaviour = nn.Linear(behaviour_size, size, bias=False)

    def forward(self, interests: Tensor, history: Tensor, mask: Tensor) -> Tensor:
        """Interests ``[n, l, s]``, history ``[n, l, b]``, mask ``[n, l]`` to ``[]``, in nats."""
        there = mask > 0
        pairs = there[:, :-1] & there[:, 1:]
        if not pairs.any():
            return interests.new_zeros(())
        behaviours = self.behaviour(history)
        before, after = interests[:, :-1][pairs], behaviours[:, 1:][pairs]
        pool = behaviours[there]
        other = pool[torch.randint(len(pool), (len(after),), device=pool.device)]
        right, wrong = (before * after).sum(-1), (before * other).sum(-1)
        return (nn.functional.softplus(-right) + nn.functional.softplus(wrong)).mean()


class Dien(ClickModel):
    """Interests extracted from the history by a GRU, and their evolution towards the target.

    Args:
        spec: what samples look like.
        size: d, floats of an embedding.
        hidden_sizes: hidden layers of the output MLP.
        interest_size: floats of an interest; None takes ``2 * size``, or the target's if fewer.
        steering: how attention steers the evolution.
        auxiliary: weight of the auxiliary loss in training; 0 leaves it out.
        activation: of the output MLP.
        dropout: of the output MLP.
    """

    def __init__(
        self,
        spec: InputSpec,
        *,
        size: int = 32,
        hidden_sizes: Sequence[int] = (200, 80),
        interest_size: int | None = None,
        steering: Steering = "augru",
        auxiliary: float = 0.0,
        activation: Activation = "dice",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec, size=size)
        inputs = self.inputs
        target, behaviour = inputs.item_count * size, inputs.history_count * size
        width = interest_size or min(2 * size, target)
        self.auxiliary = auxiliary
        self.extractor = SteeredGru(input_size=behaviour, size=width)
        self.evolution = InterestEvolution(size=width, target_size=target, steering=steering)
        self.next = NextBehaviour(size=width, behaviour_size=behaviour) if auxiliary else None
        self.deep = self._mlp(
            width, hidden_sizes=hidden_sizes, activation=activation, dropout=dropout
        )

    def read(self, embedded: Embedded) -> tuple[Tensor, None]:
        """The interest ``[n, o]``; in training its gradient is also that of the auxiliary loss."""
        target, mask = embedded.item, embedded.mask
        interests = torch.stack(self.extractor(embedded.history, mask), dim=1)
        interest = self.evolution(interests, target, mask)
        if self.next is None or not self.training:
            return interest, None
        loss = self.auxiliary * self.next(interests, embedded.history, mask)
        carried: Tensor = _CarryLoss.apply(interest, loss)  # type: ignore[no-untyped-call]
        return carried, None


class _CarryLoss(torch.autograd.Function):
    """Gives back its first argument; going backwards, the second is a loss of its own.

    So the auxiliary loss takes part in any training that knows of the logits alone.
    """

    @staticmethod
    def forward(ctx: Any, interest: Tensor, loss: Tensor) -> Tensor:
        ctx.save_for_backward(loss)
        return interest.view_as(interest)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        return gradients[0], torch.ones_like(ctx.saved_tensors[0])
