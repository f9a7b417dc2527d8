"""What in an HDF5 file leads into other files: links, storage outside of it, virtual sets.

A digest of the file, and the cache, would see nothing of a change there; and a file of unknown
origin would have files of its choice read.
"""

from pathlib import Path

import h5py

from medexp.errors import MedexpError


def refuse_links(file: h5py.File, path: Path, key: str) -> None:
    """Raise MedexpError where a key leads into another file, before that is opened.

    A soft link to another key of the same file is followed, and held against the same rule.
    """
    waiting, hops = [part for part in key.split("/") if part], 0
    at: list[str] = []
    while waiting:
        at.append(waiting.pop(0))
        link = file.get("/".join(at), getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise MedexpError(
                f"{path}: {key} is a link to {link.path} in another file, {link.filename}, whose "
                "changes would not be noticed. Copy it: old.copy(KEY, new)"
            )
        if isinstance(link, h5py.SoftLink):
            hops += 1
            if hops > 16:
                raise MedexpError(f"{path}: {key} is a link that leads to itself")
            parts = [part for part in link.path.split("/") if part]
            at, waiting = ([] if link.path.startswith("/") else at[:-1]), parts + waiting
        elif link is None:
            return


def refuse_other_files(data: h5py.Dataset, path: Path, key: str) -> None:
    """Raise MedexpError for a dataset whose values lie in other files, or come from other sets."""
    if data.external or data.is_virtual:
        if data.is_virtual:
            others = [source.file_name for source in data.virtual_sources()]
        else:
            others = [name for name, *_ in data.external]
        names = ", ".join(map(str, others[:3]))
        raise MedexpError(
            f"{path}: {key} takes its values from elsewhere ({names}), whose changes would not be "
            f"noticed. Copy them: new.create_dataset({key!r}, data=old[{key!r}])"
        )
