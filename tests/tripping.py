"""A breaker whose trips tests decide."""

import numpy as np

#: The sender whose first label trips it.
TRIP = 13


class Trips:
    """A breaker that trips at the first label of one sender."""

    def __init__(self, *_, **__):
        self.open, self.trips = False, 0

    @staticmethod
    def watches(loss):
        return loss.logit

    @property
    def reason(self):
        return "sender 13 has sent a label" if self.open else None

    def update(self, examples, admitted):
        source = examples.source
        passes = np.full(len(source), not self.open)
        if not self.open and (bad := np.flatnonzero(source == TRIP)).size:
            self.open, self.trips = True, self.trips + 1
            passes[bad[0] :] = False
        return passes

    def explain(self, names):
        return self.reason

    def reset(self, learned):
        self.open = False

    def state(self):
        return {"state": np.array([self.open, self.trips])}

    def load(self, arrays):
        self.open, self.trips = bool(arrays["state"][0]), int(arrays["state"][1])
