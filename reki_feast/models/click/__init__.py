"""Click models: what a user thinks of one target item."""

from __future__ import annotations

from reki_feast.models.click.autoint import AutoInt
from reki_feast.models.click.base import ClickModel
from reki_feast.models.click.dcn import Dcn, DcnV2
from reki_feast.models.click.deepfm import DeepFm
from reki_feast.models.click.dien import Dien
from reki_feast.models.click.din import Din
from reki_feast.models.click.fibinet import FiBiNet
from reki_feast.models.click.fignn import FiGnn
from reki_feast.models.click.xdeepfm import XDeepFm

#: Click models by the name that declarations and `reki evaluate` use.
CTR: dict[str, type[ClickModel]] = {
    "dcnv2": DcnV2,
    "dcn": Dcn,
    "deepfm": DeepFm,
    "xdeepfm": XDeepFm,
    "fibinet": FiBiNet,
    "autoint": AutoInt,
    "fignn": FiGnn,
    "dien": Dien,
    "din": Din,
}
