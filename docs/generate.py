"""Writes the tables of docs/settings.md from the code of the settings (`make docs`); a test compares the two.

python docs/generate.py
"""

from itertools import groupby
from pathlib import Path

from riverdelta.core.environment import PREFIX, TOOLS
from riverdelta.core.settings import Settings, allowed, default

PAGE = Path(__file__).parent / "settings.md"
BEGIN, END = "<!-- settings: written by `make docs` -->\n", "<!-- end of settings -->\n"
UNITS = {"bytes": ((1 << 30, "GiB"), (1 << 20, "MiB")), "seconds": ((86_400, "days"),)}


def shown(name):
    """Return a setting's default as the table shows it."""
    text = default(name)
    if text is None:
        return "unset"
    for size, unit in UNITS.get(name.rpartition("_")[2], ()):
        if int(float(text)) >= size:
            return f"`{text}` ({int(text) // size} {unit})"
    return f"`{text}`"


def tables():
    """Return the tables of settings, one for each group, and that of the tools' variables."""
    lines = []
    for group, fields in groupby(Settings.model_fields.items(), lambda item: item[1].json_schema_extra["group"]):
        lines += [f"**{group}**", "", "| variable | default | allowed | meaning |", "|---|---|---|---|"]
        for name, field in fields:
            lines.append(f"| `{PREFIX}{name.upper()}` | {shown(name)} | {allowed(name)} | {field.description} |")
        lines.append("")
    lines += ["**Not of a service, but of what surrounds it**", "", "| variable | meaning |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{PREFIX}{name}` | {meaning} |" for name, meaning in TOOLS.items()), ""])


def written(text):
    """Return the text of the page with the current tables."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{tables()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
