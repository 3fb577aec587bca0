"""The models: list, find, download, import, verify, remove.  No torch here.

This is the one door; behind it, `weights.registry` only reads and `weights.installation` changes the disk.
"""

from difftumor.weights.cards import Identification, ModelError, file_sha256, resources_folder
from difftumor.weights.installation import download, import_file, remember_licence, remove, verify
from difftumor.weights.registry import (
    InstalledModel,
    find_model,
    is_licence_accepted,
    list_models,
    models_folder,
    registry,
)

__all__ = [
    "Identification",
    "InstalledModel",
    "ModelError",
    "download",
    "file_sha256",
    "find_model",
    "import_file",
    "is_licence_accepted",
    "list_models",
    "models_folder",
    "registry",
    "remember_licence",
    "remove",
    "resources_folder",
    "verify",
]
