"""The reference service: a frozen ranker that keeps learning.

RIVERDELTA_HOME=.riverdelta bentoml serve service.service:Ranker
"""

import bentoml

from riverdelta import Calibration, Entity, Linear, online


@bentoml.service(workers=2, traffic={"timeout": 5}, logging={"access": {"enabled": False}})
@online(
    base="ranker.onnx",  # any frozen ONNX scorer: a path or a BentoML model tag
    logit="logit",  # its output (probability="..." works too)
    taps={"item_vec": "embedding_3"},  # any inner tensor of the graph can be a feature: riverdelta inspect lists them
    columns={"hour": "float32"},  # columns that the base lacks and corrections use
    corrections=[
        Calibration(),
        Linear("user_id", "item_id", "hour"),
        Entity("user_id", on=["item_vec"], forget=0.98),  # a small model of each user over the item's vector
    ],
)
class Ranker:
    """Will this user click this item?"""
