"""Origin: where a rebased home begins, before which its journal is not learned again."""

from __future__ import annotations

from pathlib import Path

import orjson

from riverdelta.core.durable import write
from riverdelta.core.errors import Corrupt, InvalidInput
from riverdelta.core.strict import Strict, validated

#: Its file in the home.
FILE = "rebased.json"
#: The verdict of the release that `riverdelta rebase` made.
REBASED = "rebased"


class Origin(Strict):
    """The journal position of release 1, which `riverdelta rebase` made, and whether its tables were learned from a log."""

    position: int
    log: bool

    @classmethod
    def of(cls, folder: Path) -> Origin | None:
        """Return the origin of the home in a folder, None if it was not rebased; raises `Corrupt` if its file is damaged."""
        path = folder / FILE
        try:
            return validated(cls, orjson.loads(path.read_bytes()), str(path))
        except FileNotFoundError:
            return None
        except (ValueError, InvalidInput) as error:
            raise Corrupt(f"{path} is damaged: {error}; restore it from a backup") from error

    def save(self, folder: Path) -> None:
        """Write it to the home in a folder."""
        write(folder / FILE, self.model_dump_json().encode())
