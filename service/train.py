"""Trains the base that this service corrects: a small DeepFM on a simulated click log.

python service/train.py
"""

from pathlib import Path

from riverdelta.lab.base import train_base
from riverdelta.lab.deepfm import DeepFMOptions
from riverdelta.lab.simulator import Simulation

if __name__ == "__main__":
    log = Simulation(rows=40_000, users=300, items=500, seed=7).generate()
    first, _ = log.stream.halves()
    first = first.select("user_id", "item_id")
    print(train_base(first, Path(__file__).parent, DeepFMOptions(dim=8, hidden=(32, 16), seed=7), name="ranker.onnx"))
