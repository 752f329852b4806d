"""A virtual environment below target/ for the tests that need Python packages."""

import os
import pathlib
import subprocess
import sys


def inside(folder, what, packages):
    """Goes on inside the virtual environment in this folder, with these packages. Says why not, if that cannot be."""
    folder = pathlib.Path(folder)
    python = folder / "bin" / "python"
    if pathlib.Path(sys.prefix) == folder:
        return
    if not (folder / "ready").exists():
        for command in (
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages],
        ):
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=300)
                why = (done.stderr or done.stdout).strip().splitlines()[-1:] if done.returncode else None
            except subprocess.TimeoutExpired:
                why = "it takes too long"
            if why is not None:
                print(f"skipped: {what} cannot be had here:", why)
                sys.exit(0)
        (folder / "ready").touch()
    os.execv(python, [str(python), *sys.argv])
