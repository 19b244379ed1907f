"""Write every dashboard to the folder dashboards/: `make dashboards`."""

from pathlib import Path

from boards.files import files

if __name__ == "__main__":
    for name, content in files().items():
        (Path(__file__).parents[1] / "dashboards" / name).write_text(content)
