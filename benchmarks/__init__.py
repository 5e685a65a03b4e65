"""Speed, as ratios taken in one run; each module is a command."""

import os

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # see pipelines/__init__.py
