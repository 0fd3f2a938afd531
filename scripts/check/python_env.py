#!/usr/bin/env python3
"""Creates a virtual environment for tests, one per version of the requirements, and prints its directory.

  scripts/check/python_env.py REQUIREMENTS     for example scripts/check/requirements-servers.txt

The environment is kept in the user's cache directory. Only tests need Python."""

import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import venv

if len(sys.argv) != 2:
    sys.exit(__doc__)
requirements = pathlib.Path(sys.argv[1])
version = hashlib.sha256(requirements.read_bytes()).hexdigest()[:8]
cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "lambert"
directory = cache / f"test-venv-{version}"
cache.mkdir(parents=True, exist_ok=True)
with open(cache / f".test-venv-{version}.lock", "w") as lock:
    # Concurrent tests use the same environment.
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not (directory / "complete").exists():
        print(f"installing {requirements} into {directory}", file=sys.stderr)
        shutil.rmtree(directory, ignore_errors=True)
        venv.create(directory, with_pip=True)
        pip = [directory / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--requirement", requirements], check=True, stdout=sys.stderr)
        (directory / "complete").touch()
print(directory)
