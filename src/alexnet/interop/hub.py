"""The Hugging Face hub: a repository fetched into its cache, a folder sent to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alexnet.errors import MissingExtraError, RunError

FETCHED = ["*.json", "*.safetensors", "*.md"]  # nothing that could run


def located(where: str | Path, revision: str | None = None) -> Path:
    """Return a model folder on this disk: itself, or the hub's, fetched once and kept.

    Raises
    ------
    MissingExtraError
        For a repository, without the extra ``hub``.
    RunError
        When there is no such folder and no such repository.
    """
    if Path(where).is_dir():
        return Path(where)
    if str(where).count("/") != 1 or str(where).startswith((".", "/", "~")):
        raise RunError(
            f"There is no folder {str(where)!r}.", "Name a model folder, or a repository user/name."
        )
    client = _client()
    with _explained_hub(str(where)):
        found = client.snapshot_download(str(where), revision=revision, allow_patterns=FETCHED)
        return Path(found)


def upload(folder: Path, repo_id: str, *, private: bool = False) -> str:
    """Make the repository where there is none, send a folder to it, return its address.

    Raises
    ------
    MissingExtraError
        Without the extra ``hub``.
    RunError
        When the hub refuses or cannot be reached.
    """
    api = _client().HfApi()
    with _explained_hub(repo_id):
        address = str(api.create_repo(repo_id, private=private, exist_ok=True))
        message = "Upload with alexnet"
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message)
    return address


def _client() -> Any:
    try:
        import huggingface_hub
    except ModuleNotFoundError:
        raise MissingExtraError("huggingface_hub", "hub", "The Hugging Face hub") from None
    return huggingface_hub


@contextmanager
def _explained_hub(repo_id: str) -> Iterator[None]:
    """Turn what the hub's client raises, which has many bases, into a sentence."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else repr(error)
        raise RunError(
            f"The repository {repo_id!r} cannot be reached ({reason}).",
            "See that its name is right, that you may use it (hf auth login), and the network.",
        ) from error
