"""Samples meet the representation of their time; weights go on from those before."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from reki_feast.errors import CondenseError
from reki_feast.models.hein import FitOptions, FittedHein, HeinData, fit_hein, make_task
from reki_feast.models.hein.network import HeinSet
from reki_feast.models.hein.standardisation import fit_standardisation
from reki_feast.schema import TIMESTAMP
from tests.models.hein.test_fit import (
    AS_OF,
    SMALL,
    USER,
    films,
    represented,
    viewers,
    watched,
)

DAY = dt.timedelta(days=1)


def dated(log: pa.Table) -> pa.Table:
    """The log, an interaction a day."""
    times = [AS_OF + order * DAY for order in log["order"].to_pylist()]
    return log.append_column("event_timestamp", pa.array(times, TIMESTAMP))


def at(table: pa.Table, time: dt.datetime) -> pa.Table:
    place = table.column_names.index("event_timestamp")
    return table.set_column(place, "event_timestamp", pa.array([time] * len(table), TIMESTAMP))


def states(users: int) -> pa.Table:
    """Two rows a user, but one of the last user and none of the first."""
    early, late = (at(viewers(users), AS_OF + days * DAY) for days in (5, 10))
    return pa.concat_tables([late.slice(1), early.slice(1, users - 2)])


def test_a_sample_meets_the_newest_state_of_its_time() -> None:
    log, table = dated(watched(5)), states(5)
    fields = pa.table({"customer_id": [f"c{n}" for n in range(5)], "town": list("abcde")})
    data = HeinData(log, table, films(), user_fields=fields)
    task = make_task(data, config=replace(SMALL, test=0.0, validation=0.0), seed=0)
    assert task.user_rows is not None
    assert task.spec.user_fields is not None
    rows = log.filter(log["sample"]).sort_by([("customer_id", "ascending"), ("order", "ascending")])
    index = torch.cat([part.user for part in vars(task.parts).values()]).sort().values.tolist()
    found = []
    for one in index:
        owner, row = task.users[one - 1].as_py(), task.user_rows[one - 1]
        found.append((owner, table["event_timestamp"][row].as_py() if row >= 0 else None))
        if row >= 0:
            assert table["customer_id"][row].as_py() == owner
        town = task.spec.user_fields.codes[one, 0]
        assert town == 1 + int(owner[1:])
    wanted = []
    for row in rows.to_pylist():
        own = [
            state["event_timestamp"]
            for state in table.to_pylist()
            if state["customer_id"] == row["customer_id"]
            and state["event_timestamp"] <= row["event_timestamp"]
        ]
        wanted.append((row["customer_id"], max(own, default=None)))
    assert sorted(found, key=repr) == sorted(wanted, key=repr)
    assert {time for _, time in found} == {None, AS_OF + 5 * DAY, AS_OF + 10 * DAY}


def test_users_are_held_out_with_all_their_states() -> None:
    log = dated(watched(30))
    task = make_task(HeinData(log, states(30), films()), config=SMALL, seed=0)
    plain = make_task(HeinData(log, viewers(30), films()), config=SMALL, seed=0)
    for part, same in zip(vars(task.parts).values(), vars(plain.parts).values(), strict=True):
        owners = {task.users[one - 1].as_py() for one in part.user.tolist()}
        assert owners == {plain.users[one - 1].as_py() for one in same.user.tolist()}
        assert torch.equal(part.item, same.item)


def trained(log: pa.Table, users: pa.Table) -> FittedHein:
    return fit_hein(HeinData(log, users, films()), config=SMALL, options=FitOptions(compare=False))


def test_several_states_are_trained_on_where_interactions_have_times() -> None:
    log = watched(30)
    made, of_one = trained(dated(log), states(30)), trained(log, viewers(30))
    assert (made.q, made.pairs) == (of_one.q, of_one.pairs)
    with pytest.raises(CondenseError, match="a user has one representation"):
        trained(log, states(30))


def test_a_channel_may_come_later() -> None:
    users = represented(USER, ["c0", "c1"], knowledge=[None, None], history=["saw war", "saw love"])
    log = watched(2)
    with pytest.raises(CondenseError, match="user knowledge: none"):
        fit_hein(HeinData(log, users, films()), config=SMALL, options=FitOptions(compare=False))
    made = fit_hein(
        HeinData(log, users, films()),
        config=SMALL,
        options=FitOptions(compare=False, allow_missing=True),
    )
    assert made.pairs[0] == ("knowledge", "knowledge")
    empty = represented(USER, ["c0", "c1"], knowledge=[None, None])
    with pytest.raises(CondenseError, match="user knowledge: none"):
        fit_hein(
            HeinData(log, empty, films()),
            config=SMALL,
            options=FitOptions(compare=False, allow_missing=True),
        )


def test_components_are_turned_upon_those_before() -> None:
    def heins() -> HeinSet:
        return HeinSet(pairs=[("history", "knowledge")], input_size=16, components=2)

    one, other, alone = heins(), heins(), heins()
    fit_standardisation(one, viewers(9), "user", norm=1)
    fit_standardisation(alone, viewers(40).slice(1), "user", norm=1)
    fit_standardisation(other, viewers(40).slice(1), "user", norm=1, warm_start=one)
    bases = [made.basis("user", "history") for made in (one, other, alone)]
    torch.testing.assert_close(bases[1].T @ bases[1], torch.eye(2), atol=1e-5, rtol=0)
    spans = [basis @ basis.T for basis in bases[1:]]
    torch.testing.assert_close(*spans, atol=1e-5, rtol=0)
    near = [float((bases[0] - basis).norm()) for basis in bases[1:]]
    turns = np.linspace(0, 2 * np.pi, 50)
    for turn in turns:  # no other turn is nearer
        cos, sin = np.cos(turn), np.sin(turn)
        matrix = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float32)
        assert near[0] <= float((bases[0] - bases[2] @ matrix).norm()) + 1e-4
    assert near[0] <= near[1] + 1e-5
