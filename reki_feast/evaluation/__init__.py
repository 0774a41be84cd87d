"""`reki evaluate`: the paper's tables again, with this project's vectors and backbones."""
