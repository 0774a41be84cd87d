"""Click models: what a user thinks of one target item."""

from __future__ import annotations

from reki_feast.recommend.ctr.autoint import AutoInt
from reki_feast.recommend.ctr.click import ClickModel
from reki_feast.recommend.ctr.dcn import Dcn, DcnV2
from reki_feast.recommend.ctr.deepfm import DeepFm
from reki_feast.recommend.ctr.dien import Dien
from reki_feast.recommend.ctr.din import Din
from reki_feast.recommend.ctr.fibinet import FiBiNet
from reki_feast.recommend.ctr.fignn import FiGnn
from reki_feast.recommend.ctr.xdeepfm import XDeepFm

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
