"""What models are called in text."""

#: Names as papers write them.
LABELS = {
    "dcnv2": "DCNv2",
    "dcn": "DCNv1",
    "deepfm": "DeepFM",
    "xdeepfm": "xDeepFM",
    "fibinet": "FiBiNET",
    "autoint": "AutoInt",
    "fignn": "FiGNN",
    "dien": "DIEN",
    "din": "DIN",
    "dlcm": "DLCM",
    "prm": "PRM",
    "setrank": "SetRank",
    "mir": "MIR",
}
