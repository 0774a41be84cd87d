"""What backbones read: fields side by side, padding left out, each item embedded once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reki_feast.models.data import Samples
from reki_feast.models.fields import Fields
from reki_feast.models.inputs import InputLayer, InputSpec, average


def layer(**spec: object) -> InputLayer:
    torch.manual_seed(0)
    return InputLayer(InputSpec(items=3, **spec), size=2)  # type: ignore[arg-type]


def samples(items: list[int], histories: list[list[int]]) -> Samples:
    history = torch.tensor(histories, dtype=torch.int32)
    n = len(items)
    user, label = torch.arange(1, n + 1), torch.ones(n)
    return Samples(user, torch.tensor(items), history, (history > 0).int() * 2, label)


GENRES = Fields(torch.tensor([[0, 0], [1, 2], [2, 0], [0, 0]]), (3,), (2,))


def test_a_behaviour_is_an_item_with_its_fields_and_a_verdict() -> None:
    made = layer(item_fields=GENRES)
    found = made(samples([1, 2], [[0, 2], [3, 1]]))
    own, verdict = made.item.weight, made.verdict.weight[2]
    (genre,) = (table.get_parameter("weight") for table in made.item_fields.tables)
    film = {1: (genre[1] + genre[2]) / 2, 2: genre[2], 3: torch.zeros(2)}
    target = torch.stack([torch.cat([own[n], film[n]]) for n in (1, 2)])
    torch.testing.assert_close(found.item, target)
    behaviour = {n: torch.cat([own[n], film[n], verdict]) for n in film}
    rows = [[torch.zeros(6), behaviour[2]], [behaviour[3], behaviour[1]]]
    torch.testing.assert_close(found.history, torch.stack([torch.stack(row) for row in rows]))
    assert found.mask.tolist() == [[0, 1], [1, 1]]
    mean = torch.stack([behaviour[2], (behaviour[3] + behaviour[1]) / 2])
    torch.testing.assert_close(found.mean_history, mean)


def test_an_empty_history_has_a_mean_of_zero() -> None:
    found = layer()(samples([1], [[0, 0]]))
    assert found.mean_history.tolist() == [[0, 0, 0, 0]]


def test_fields_lie_side_by_side() -> None:
    ages = Fields(torch.tensor([[0], [1], [2]]), (3,))
    made = layer(user_fields=ages, item_fields=GENRES, extra_sizes=(4, 3))
    found = made(samples([1, 2], [[1], [2]]), [torch.ones(2, 4), torch.ones(2, 3)])
    assert (made.item_count, made.history_count, made.user_count, made.extra_count) == (2, 3, 1, 4)
    assert found.fields().shape == (2, made.count, 2) == (2, 6, 2)
    torch.testing.assert_close(
        found.fields()[:, 5], made.user_fields.tables[0].get_parameter("weight")[1:]
    )
    assert found.extras.shape == (2, 4 * 2)
    torch.testing.assert_close(found.extras[:, :4], torch.ones(2, 4))  # cut, not changed


@pytest.mark.parametrize("times", [1, 4])
def test_each_item_is_embedded_once(times: int) -> None:
    made = layer(item_fields=GENRES)
    seen: list[int] = []
    made.item.register_forward_hook(lambda module, given, out: seen.append(len(given[0])))
    few = samples([1], [[2]])
    many = few.take(torch.zeros(times, dtype=torch.int64))
    made(many)
    assert seen == [2 if times == 1 else 4]  # the distinct ones (of 4 that are), or all there are
    torch.testing.assert_close(made(many).item[:1], made(few).item)


def test_lists_have_a_target_a_place() -> None:
    made = layer(item_fields=GENRES, extra_sizes=(2,))
    one = samples([1, 2], [[1], [0]])
    lists = replace(one, item=torch.tensor([[1, 3, 2], [2, 2, 1]]))
    found = made(lists, [torch.ones(2, 3, 2)])
    assert found.item.shape == (2, 3, 4)
    assert found.extras.shape == (2, 3, 2)
    torch.testing.assert_close(found.item[:, 0], made(one, [torch.ones(2, 2)]).item)


def test_as_many_extra_vectors_as_declared() -> None:
    with pytest.raises(ValueError, match="1 extra vectors, as declared: 0"):
        layer(extra_sizes=(2,))(samples([1], [[1]]))


def test_absent_values_of_a_list_do_not_count() -> None:
    codes = torch.tensor([[0, 0, 0], [3, 0, 0], [2, 0, 1], [0, 0, 0]])
    rows = torch.nn.Embedding.from_pretrained(torch.tensor([[0.0], [1.0], [3.0], [7.0]]))
    assert average(rows, codes).flatten().tolist() == [0, 7, 2, 0]
    assert average(rows, codes[:, :1]).flatten().tolist() == [0, 7, 3, 0]
