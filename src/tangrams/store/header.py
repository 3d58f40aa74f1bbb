"""The header of a store: what it is, kept as attributes of the Zarr group and sealed by a checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tangrams.store.errors import CorruptStoreError, StoreFormatError
from tangrams.store.layout import StoreSpec

FORMAT = "tangrams-features"
VERSION = 1
HEADER_LIMIT = 1 << 26
_OWN = ("format", "version", "spec")


@dataclass(frozen=True)
class Header:
    """What a store is.

    Attributes:
        spec: its shape.
        about: what it was made from, as JSON data: the map, the data, options, environment.
    """

    spec: StoreSpec
    about: Mapping[str, Any]

    @classmethod
    def of(cls, spec: StoreSpec, about: Mapping[str, Any]) -> Header:
        """A header over anything that JSON can hold.

        Args:
            spec: the shape.
            about: JSON data; tuples become lists.

        Raises:
            ValueError: if ``about`` is not JSON data or uses a name of the header's own.
        """
        clash = sorted(set(about) & set(_OWN))
        if clash:
            raise ValueError(f"the header has its own {', '.join(clash)}")
        try:
            return cls(spec, json.loads(json.dumps(about, allow_nan=False)))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"what a store says about itself must be JSON data: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return {"format": FORMAT, "version": VERSION, "spec": self.spec.to_json(), **self.about}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content; ties manifest and copies to this very store."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_bytes(self) -> bytes:
        """The group's ``zarr.json``."""
        document = {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": {"tangrams": {**self.to_json(), "sha256": self.digest}},
        }
        return json.dumps(document, indent=2).encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Header:
        """Read a group's ``zarr.json`` of any origin.

        Args:
            data: the file's bytes.
            where: named in errors.

        Raises:
            StoreFormatError: if it is no store's, or of an unknown version.
            CorruptStoreError: if any byte of it was changed.
        """
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise CorruptStoreError(f"{where}/zarr.json is not JSON ({error}): the header is cut or damaged") from None
        attributes = document.get("attributes") if isinstance(document, dict) else None
        content = attributes.get("tangrams") if isinstance(attributes, dict) else None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise StoreFormatError(f"{where} is no feature store: its zarr.json does not say {FORMAT}")
        if content.get("version") != VERSION or type(content["version"]) is not int:
            raise StoreFormatError(
                f"{where} has format version {content.get('version')!r:.40}, this one reads {VERSION}: "
                "open it with the tangrams that wrote it"
            )
        about = {key: value for key, value in content.items() if key not in (*_OWN, "sha256")}
        header = cls(StoreSpec.from_json(content.get("spec")), about)
        if header.to_bytes() != data:
            raise CorruptStoreError(f"{where}/zarr.json was changed after it was written: its checksum differs")
        return header


def differences(there: Any, here: Any, name: str = "") -> list[str]:
    """One line per place where two pieces of JSON data differ.

    Args:
        there: the store's.
        here: what is asked for now.
        name: the dotted path so far.
    """
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        lines = []
        for key in [*there, *(key for key in here if key not in there)]:
            inner = f"{name}.{key}" if name else str(key)
            if key not in here or key not in there:
                side = "only in the store" if key in there else "not in the store"
                lines.append(f"{inner}: {side}")
            else:
                lines.extend(differences(there[key], here[key], inner))
        return lines
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        return [
            line
            for position, (one, other) in enumerate(zip(there, here, strict=True))
            for line in differences(one, other, f"{name}[{position}]")
        ]
    same = there == here and type(there) is type(here)
    return [] if same else [f"{name}: {_short(there)} in the store, {_short(here)} now"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
