"""HEIN, the hybridised expert-integrated network: equation 3 of REKI (arXiv 2408.10520).

Experts condense the representations of users and items. Some are shared by both towers (S_s), some
dedicated to one (S_u, S_i). In each tower a softmax gate of the representation weighs the shared
and the dedicated experts::

    alpha_u = softmax(g_u(r_u))        one weight for each expert of S_s and S_u
    user(r_u) = sum over e in S_s and S_u of  alpha_u[e] * e(r_u)

and likewise for items with g_i, S_s and S_i. An expert is an MLP m -> 128 -> 32 with ReLU between
the layers and none after the last: the paper names the sizes, not the activation, and a ReLU at
the end would leave half of an augmented vector's space unused. A gate is one linear layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from reki_feast.schema import KINDS, Kind


class Experts(NamedTuple):
    """Weights of e experts, MLPs of one hidden layer.

    Attributes:
        first_weight: ``[e, hidden, m]``.
        first_bias: ``[e, hidden]``.
        second_weight: ``[e, hidden, output]``.
        second_bias: ``[e, output]``.
    """

    first_weight: Tensor
    first_bias: Tensor
    second_weight: Tensor
    second_bias: Tensor


def mixture(rows: Tensor, experts: Experts, gate: Tensor, dropout: nn.Module) -> Tensor:
    """A mixture of experts ``[n, output]``, by two matrix products for all experts and rows.

    The gate's weights scale the hidden units instead of the experts' outputs: the second layers
    are linear, so the sum over experts is one product as well.

    Args:
        rows: ``[n, m]``.
        experts: e of them.
        gate: ``[n, e]``, before the softmax.
        dropout: Of the hidden units.
    """
    first = experts.first_weight.flatten(0, 1)
    alpha = torch.softmax(gate, dim=-1)
    units = nn.functional.linear(rows, first, experts.first_bias.flatten())
    units = dropout(torch.relu_(units))
    weighted = units.unflatten(1, (alpha.shape[1], -1)) * alpha.unsqueeze(-1)
    second = experts.second_weight.flatten(0, 1)
    bias = alpha @ experts.second_bias
    return torch.addmm(bias, weighted.flatten(1), second)


class Hein(nn.Module):
    """One HEIN: condenses a user's and an item's representation of m floats (equation 3).

    The weights of all experts are stacked, user experts, shared, item experts, so that a tower's
    experts are one slice, and a layer of all of them one matrix product.

    Args:
        input_size: m, floats of a representation.
        shared_experts: size of S_s.
        user_experts: size of S_u.
        item_experts: size of S_i.
        hidden_size: width of an expert's hidden layer.
        output_size: floats of a condensed vector.
        dropout: share of an expert's hidden units dropped in training.

    Attributes:
        first_weight: ``[experts, hidden, m]``; ``first_bias`` ``[experts, hidden]``.
        second_weight: ``[experts, hidden, output]``; ``second_bias`` ``[experts, output]``.
        user_experts: the slice of S_u and S_s, in the order of ``user_gate``'s weights.
        item_experts: the slice of S_s and S_i, in the order of ``item_gate``'s weights.
    """

    def __init__(
        self,
        *,
        input_size: int,
        shared_experts: int = 2,
        user_experts: int = 4,
        item_experts: int = 4,
        hidden_size: int = 128,
        output_size: int = 32,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check_counts(shared_experts, user_experts, item_experts)
        count = user_experts + shared_experts + item_experts
        self.user_experts = slice(0, user_experts + shared_experts)
        self.item_experts = slice(user_experts, count)
        self.first_weight = uniform(count, hidden_size, input_size, fan_in=input_size)
        self.first_bias = uniform(count, hidden_size, fan_in=input_size)
        self.second_weight = uniform(count, hidden_size, output_size, fan_in=hidden_size)
        self.second_bias = uniform(count, output_size, fan_in=hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.user_gate = nn.Linear(input_size, user_experts + shared_experts)
        self.item_gate = nn.Linear(input_size, shared_experts + item_experts)

    def user(self, r_u: Tensor) -> Tensor:
        """Condense users: ``[..., m]`` to ``[..., output_size]``."""
        return self._tower(r_u, self.user_experts, self.user_gate)

    def item(self, r_i: Tensor) -> Tensor:
        """Condense items: ``[..., m]`` to ``[..., output_size]``."""
        return self._tower(r_i, self.item_experts, self.item_gate)

    def _tower(self, r: Tensor, experts: slice, gate: nn.Linear) -> Tensor:
        """See :func:`mixture`."""
        rows = r.reshape(-1, r.shape[-1])
        output = mixture(rows, self.experts(experts), gate(rows), self.dropout)
        return output.reshape(*r.shape[:-1], output.shape[-1])

    def experts(self, which: slice) -> Experts:
        """The weights of some experts."""
        weights = (self.first_weight, self.first_bias, self.second_weight, self.second_bias)
        return Experts(*(weight[which] for weight in weights))


class HeinSet(nn.Module):
    """One HEIN for each pair of channels; a tower's outputs are concatenated, q = 32 a pair.

    Before a HEIN reads a representation, the channel's mean is subtracted, and the difference is
    divided by the channel's scale and projected onto its first principal components
    (:meth:`standardise`): pooled token vectors of one channel lie in a narrow cone, and differ
    little, in few directions. Means, scales and components are constants of the training data,
    stored with the weights. A missing channel counts as its mean.

    Args:
        pairs: pairs of a user's channel and an item's, at least one.
        input_size: m, floats of a representation, the same for all channels.
        components: p, principal components that the HEINs read; None for all m floats as they are.
        shared_experts: as in :class:`Hein`.
        user_experts: as in :class:`Hein`.
        item_experts: as in :class:`Hein`.
        hidden_size: as in :class:`Hein`.
        output_size: floats a pair.
        dropout: as in :class:`Hein`.
    """

    def __init__(
        self,
        *,
        pairs: Sequence[tuple[str, str]],
        input_size: int,
        components: int | None = None,
        shared_experts: int = 2,
        user_experts: int = 4,
        item_experts: int = 4,
        hidden_size: int = 128,
        output_size: int = 32,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.pairs = tuple((user, item) for user, item in pairs)
        self.input_size = input_size
        self.read_size = input_size if components is None else min(components, input_size)
        self.output_size = output_size
        self.size = output_size * len(self.pairs)
        self.heins = nn.ModuleList(
            Hein(
                input_size=self.read_size,
                shared_experts=shared_experts,
                user_experts=user_experts,
                item_experts=item_experts,
                hidden_size=hidden_size,
                output_size=output_size,
                dropout=dropout,
            )
            for _ in self.pairs
        )
        for kind in KINDS:
            count = len(self.channels(kind))
            self.register_buffer(f"{kind}_mean", torch.zeros(count, input_size))
            self.register_buffer(f"{kind}_scale", torch.ones(count))
            if components is not None:
                basis = torch.eye(input_size, self.read_size).repeat(count, 1, 1)
                self.register_buffer(f"{kind}_basis", basis)

    def pair_channels(self, kind: Kind) -> tuple[str, ...]:
        """The channel of users, or of items, that each pair's HEIN reads."""
        return tuple(pair[0 if kind == "user" else 1] for pair in self.pairs)

    def channels(self, kind: Kind) -> tuple[str, ...]:
        """The channels of users, or of items, each once, in the order of the pairs."""
        return tuple(dict.fromkeys(self.pair_channels(kind)))

    def mean(self, kind: Kind, channel: str) -> Tensor:
        """A channel's mean representation ``[m]``, in the units of the encoder."""
        mean: Tensor = getattr(self, f"{kind}_mean")[self.channels(kind).index(channel)]
        return mean

    def basis(self, kind: Kind, channel: str) -> Tensor:
        """A channel's principal components ``[m, p]``; of all m floats where none are taken."""
        bases = getattr(self, f"{kind}_basis", None)
        if bases is None:
            return torch.eye(self.input_size)
        basis: Tensor = bases[self.channels(kind).index(channel)]
        return basis

    def set_standardisation(
        self, kind: Kind, channel: str, mean: Tensor, scale: float, basis: Tensor | None = None
    ) -> None:
        """Set a channel's mean ``[m]``, its scale and its basis ``[m, p]``, if any."""
        row = self.channels(kind).index(channel)
        getattr(self, f"{kind}_mean")[row] = mean
        getattr(self, f"{kind}_scale")[row] = scale
        if basis is not None:
            getattr(self, f"{kind}_basis")[row] = basis

    def standardise(self, kind: Kind, channel: str, r: Tensor) -> Tensor:
        """Representations ``[..., m]`` as the HEINs read them: ``[..., p]``."""
        row = self.channels(kind).index(channel)
        scale: Tensor = getattr(self, f"{kind}_scale")[row]
        centred = (r - self.mean(kind, channel)) / scale
        basis: Tensor | None = getattr(self, f"{kind}_basis", None)
        return centred if basis is None else centred @ basis[row]

    def condense(self, kind: Kind, pair: int, r: Tensor) -> Tensor:
        """One pair's HEIN on one tower: standardised ``[..., p]`` to ``[..., output_size]``."""
        hein = self.heins[pair]
        assert isinstance(hein, Hein)
        return hein.user(r) if kind == "user" else hein.item(r)

    def user(self, representations: Mapping[str, Tensor]) -> Tensor:
        """Users' augmented vectors: a tensor ``[..., m]`` a channel to ``[..., q]``."""
        return self._all("user", representations)

    def item(self, representations: Mapping[str, Tensor]) -> Tensor:
        """Items' augmented vectors: a tensor ``[..., m]`` a channel to ``[..., q]``."""
        return self._all("item", representations)

    def _all(self, kind: Kind, representations: Mapping[str, Tensor]) -> Tensor:
        parts = []
        for pair, channel in enumerate(self.pair_channels(kind)):
            r = self.standardise(kind, channel, representations[channel])
            parts.append(self.condense(kind, pair, r))
        return torch.cat(parts, dim=-1)


def uniform(*shape: int, fan_in: int) -> nn.Parameter:
    """Initial weights as those of :class:`torch.nn.Linear`."""
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))


def _check_counts(shared: int, user: int, item: int) -> None:
    if min(shared, user, item) < 0 or shared + min(user, item) < 1:
        found = f"shared {shared}, user {user}, item {item}"
        raise ValueError(f"each tower of a HEIN has at least one expert: {found}")
