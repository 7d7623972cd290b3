"""A registry that is a folder of MLflow model folders: DIR/<name>/<version>/MLmodel.

For bundling where there is no MLflow server, and the stub beside the real one in tests. Aliases, if any, are in
DIR/<name>/aliases.json: {"champion": "3"}.
"""

import json
import shutil
from pathlib import Path

from sunup.errors import RegistryError
from sunup.registry.source import Entry, Reference, Resolved, Version, choose

ALIASES = "aliases.json"


class FolderSource:
    """A Source over a folder tree. A sub-folder counts as a version when its name is a number and it holds MLmodel."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __repr__(self) -> str:
        return f"FolderSource({str(self._root)!r})"

    def resolve(self, reference: Reference) -> Resolved:
        """See Source."""
        return choose(reference, find=self._find, names=self.models, where=str(self._root))

    def fetch(self, resolved: Resolved, into: Path) -> Path:
        """Copy the model's folder to `into`/<name>-<version>. Raises RegistryError when it is gone or unreadable."""
        target = into / f"{resolved.name}-{resolved.version}"
        return copy_model(Path(resolved.source_uri), target)

    def models(self) -> list[str]:
        """See Source. A root that does not exist holds no models."""
        if not self._root.is_dir():
            return []
        return sorted(folder.name for folder in self._root.iterdir() if _versions(folder))

    def _find(self, name: str) -> Entry | None:
        folder = self._root / name
        # A name is one path component: "..", "a/b" and the empty name are no models.
        versions = _versions(folder) if folder.parent == self._root and folder.name == name else {}
        return Entry(name, versions, _aliases(folder / ALIASES)) if versions else None


def copy_model(source: Path, target: Path) -> Path:
    """Copy an MLflow model folder. Raises RegistryError when `source` holds no MLmodel or cannot be read."""
    if not (source / "MLmodel").is_file():
        raise RegistryError(f"The files of the model are missing: there is no {source / 'MLmodel'}. Register it again.")
    try:
        shutil.copytree(source, target, dirs_exist_ok=True)
    except (OSError, shutil.Error) as error:
        raise RegistryError(f"The files of the model in {source} cannot be copied: {error}.") from error
    return target


def _versions(folder: Path) -> dict[str, Version]:
    if not folder.is_dir():
        return {}
    return {
        version.name: Version(run_id="", uri=str(version))
        for version in folder.iterdir()
        if version.name.isdecimal() and str(int(version.name)) == version.name and (version / "MLmodel").is_file()
    }


def _aliases(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        raw = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RegistryError(f'{path} cannot be read: {error}. It must be like {{"champion": "3"}}.') from error
    if not isinstance(raw, dict) or not all(isinstance(version, str) for version in raw.values()):
        raise RegistryError(f'{path} must be like {{"champion": "3"}}.')
    return raw
