"""The nearest centre in each subset, whoever is beside the point and however far away it is."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reki_feast.clustering.kernel import Floats, IsolationKernel

Wide = npt.NDArray[np.float64]


def distances(points: Floats, centres: Floats) -> Wide:
    """``[n, t, psi]``, squared, in float64."""
    apart = points.astype(np.float64)[:, None, None, :] - centres.astype(np.float64)
    return np.asarray((apart**2).sum(axis=3))


def normal(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 12), st.integers(1, 9), st.integers(1, 5), st.integers(1, 7), st.integers(0, 99)
)
def test_the_first_of_the_nearest_centres(n: int, d: int, t: int, psi: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    points = draw.integers(-3, 4, (n, d)).astype(np.float32)
    centres = draw.integers(-3, 4, (t, psi, d)).astype(np.float32)
    found = IsolationKernel(centres).map(points)
    assert found.tolist() == distances(points, centres).argmin(axis=2).tolist()


def test_floats_go_to_a_centre_as_near_as_any() -> None:
    points, centres = normal(400, 33), normal(30, 13, 33, seed=1)
    apart = distances(points, centres)
    found = IsolationKernel(centres).map(points).astype(np.int64)
    chosen = np.take_along_axis(apart, found[:, :, None], axis=2)[:, :, 0]
    assert (chosen <= apart.min(axis=2) * (1 + 1e-5)).all()
    assert (found == apart.argmin(axis=2)).mean() > 0.999


@pytest.mark.parametrize("far", [2**10, 2**16, 2**20])
def test_far_from_the_origin_nothing_cancels(far: int) -> None:
    draw = np.random.default_rng(0)
    centres = (far + draw.integers(-4, 5, (6, 5, 3))).astype(np.float32)
    points = (far + draw.integers(-4, 5, (50, 3))).astype(np.float32)
    found = IsolationKernel(centres).map(points)
    assert found.tolist() == distances(points, centres).argmin(axis=2).tolist()


def test_an_outlier_goes_to_the_centre_on_its_side() -> None:
    kernel = IsolationKernel(np.array([[[-1.0], [0.0], [1.0]]], np.float32))
    assert kernel.map(np.array([[-1e6], [0.1], [1e6]], np.float32))[:, 0].tolist() == [0, 1, 2]


def test_a_distance_beyond_float32_takes_the_first_centre() -> None:
    kernel = IsolationKernel(normal(4, 3, 5))
    assert not kernel.map(np.full((2, 5), 3e38, np.float32)).any()


@pytest.mark.parametrize("cores", [1, 2, 7])
def test_neither_the_rows_beside_nor_the_threads_matter(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    points, kernel = normal(5_000, 6), IsolationKernel(normal(20, 13, 6, seed=1))
    one_by_one = [kernel.map(points[row : row + 1])[0].tolist() for row in range(0, 5_000, 7)]
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert kernel.map(points)[::7].tolist() == one_by_one
    assert kernel.map(points[::-1])[::-1][::7].tolist() == one_by_one


@pytest.mark.parametrize(("psi", "bits"), [(1, 8), (256, 8), (257, 16), (65_536, 16), (65_537, 32)])
def test_places_are_as_wide_as_they_need_to_be(psi: int, bits: int) -> None:
    kernel = IsolationKernel(np.arange(psi, dtype=np.float32)[None, :, None])
    found = kernel.map(np.array([[psi - 1], [0]], np.float32))
    assert found.dtype.itemsize * 8 == bits
    assert found[:, 0].tolist() == [psi - 1, 0]


def test_subsets_are_drawn_from_the_points_without_replacement() -> None:
    points = np.arange(40, dtype=np.float32).reshape(20, 2)
    kernel = IsolationKernel.draw(points, 50, 6, np.random.default_rng(3))
    assert (kernel.t, kernel.psi, kernel.d) == (50, 6, 2)
    drawn = [{tuple(centre) for centre in subset} for subset in kernel.centres.tolist()]
    assert all(len(subset) == 6 for subset in drawn)
    assert set.union(*drawn) == {tuple(point) for point in points.tolist()}
    again = IsolationKernel.draw(points, 50, 6, np.random.default_rng(3))
    assert kernel.centres.tolist() == again.centres.tolist()


@pytest.mark.parametrize(
    ("points", "psi"), [(1, 1), (2, 1), (3, 2), (12, 6), (13, 7), (24, 12), (25, 13), (90, 13)]
)
def test_at_most_half_of_the_points_are_centres(points: int, psi: int) -> None:
    kernel = IsolationKernel.draw(normal(points, 2), 5, 13, np.random.default_rng(0))
    assert kernel.psi == psi
