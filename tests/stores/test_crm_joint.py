"""`feature_repo/crm/joint_torch_rechub.py`: HEIN behind a model of another library."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from reki_feast import stages
from tests.stages.conftest import make_shop

CRM = Path(__file__).resolve().parents[2] / "feature_repo" / "crm"


def test_torch_rechubs_deepfm_is_trained_with_heins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch_rechub")
    shop = make_shop(tmp_path / "my shop")
    stages.generate(shop)
    stages.encode(shop)
    monkeypatch.syspath_prepend(str(CRM))
    monkeypatch.setattr(sys, "argv", ["joint_torch_rechub.py", str(shop.root)])
    job: dict[str, Any] = runpy.run_path(str(CRM / "joint_torch_rechub.py"))
    job["main"]()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("AUC")[0].strip() for line in lines] == [
        "torch-rechub  DeepFM",
        "torch-rechub  DeepFM with HEIN",
    ]
    assert all(0 < float(line.split()[-3]) < 1 for line in lines)
