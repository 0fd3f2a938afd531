"""Downloads packages of public registries with their own clients, verifies their sha256 and unpacks them.

A package is named `registry:name==version`; registries are `pypi`, `npm` and `debian`. Standard library only.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

CLIENTS = {"pypi": "pip", "npm": "npm", "debian": "apt-get"}


def command(registry: str, name: str, version: str) -> list[str]:
    """Returns the command that downloads the package file into the working directory."""
    if registry == "pypi":
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        return [*pip, f"{name}=={version}"]
    if registry == "npm":
        return ["npm", "pack", "--silent", f"{name}@{version}"]
    # As root, apt switches to a user without write permission here and prints a warning.
    return ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", f"{name}={version}"]


def unpack(archive: Path, directory: Path) -> None:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(directory)
    elif archive.suffix == ".deb":
        subprocess.run(["dpkg-deb", "-x", archive, directory], check=True)
    else:
        with tarfile.open(archive) as tar:
            tar.extractall(directory, filter="data") if hasattr(tarfile, "data_filter") else tar.extractall(directory)


def fetch(package: str, sha256: str, cache: Path) -> Path:
    """Returns the directory of the unpacked package under `cache`; downloads the package on first use."""
    registry, rest = package.split(":")
    name, version = rest.split("==")
    unpacked = cache / f"{sha256[:16]}-{name.strip('@').replace('/', '-')}"
    if unpacked.is_dir():
        return unpacked
    if registry != "pypi" and shutil.which(CLIENTS[registry]) is None:
        sys.exit(f"error: {package} requires {CLIENTS[registry]}, which is not installed: omit the sources of this package")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as directory:
        download = subprocess.run(command(registry, name, version), cwd=directory, stdout=subprocess.DEVNULL)
        if download.returncode != 0:
            hint = " (run `apt-get update` once)" if registry == "debian" else ""
            sys.exit(f"error: {CLIENTS[registry]} could not download {package}: check the network{hint}")
        (archive,) = Path(directory).iterdir()
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != sha256:
            sys.exit(f"error: {archive.name} has sha256 {found}, expected {sha256}: the package changed, do not use it")
        partial = Path(directory) / "unpacked"
        partial.mkdir()
        unpack(archive, partial)
        partial.rename(unpacked)
    return unpacked
