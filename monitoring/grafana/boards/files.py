"""Files: the JSON of every dashboard by its file's name."""

from __future__ import annotations

import json

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from boards import drift, learning, overview, serving


def files() -> dict[str, str]:
    """Return the contents of the folder dashboards/, byte for byte."""
    boards = {"overview": overview, "serving": serving, "learning": learning, "drift": drift}
    return {
        f"{name}.json": json.dumps(made.dashboard(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        for name, made in boards.items()
    }
