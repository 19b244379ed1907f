"""The tests here and `record.py` share the modules of this folder by their plain names."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
