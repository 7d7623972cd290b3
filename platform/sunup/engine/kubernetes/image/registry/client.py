"""A registry and its repositories, by the OCI distribution specification 1.1: what is there, what is fetched, what is
put.

Layers are sent whole, in one PUT, for that is what every registry takes; where one is refused for its size it is sent
in pieces. A manifest is put last, so an image is there whole or not at all."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedRandom, BytesIO
from typing import BinaryIO, Final
from urllib.parse import quote

from sunup.engine.kubernetes.image.model import INDEX_TYPE, MANIFEST_TYPE, Blob, Descriptor, Held, held
from sunup.engine.kubernetes.image.registry.reference import Address, parse_address
from sunup.engine.kubernetes.image.registry.refusal import Answer, refused
from sunup.engine.kubernetes.image.registry.wire import PASSING, Body, Wire
from sunup.errors import ImageError
from sunup.limits import (
    IMAGE_CHUNK_BYTES,
    IMAGE_CHUNK_BYTES_MAX,
    IMAGE_STORE_SECONDS_MAX,
    IMAGE_TRIES_MAX,
)

DOCKER_MANIFEST_TYPE: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX_TYPE: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
_ACCEPTED: Final = ", ".join((MANIFEST_TYPE, INDEX_TYPE, DOCKER_MANIFEST_TYPE, DOCKER_INDEX_TYPE))
_BYTES: Final = {"Content-Type": "application/octet-stream"}


class Registry:
    """A registry, and where in it our repositories are."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def __repr__(self) -> str:
        return f"Registry({self.address.url}, prefix={self.address.prefix!r})"

    @classmethod
    def of(cls, text: str, *, environment: Mapping[str, str] = os.environ) -> "Registry":
        """ "host[:port][/prefix]"; plain http for this machine, or where "http://" is written. Raises UsageError."""
        return cls(Wire(parse_address(text), environment=environment))

    @property
    def address(self) -> Address:
        """Host, prefix, and whether it is spoken to in plain http."""
        return self._wire.address

    def repository(self, name: str) -> "Repository":
        """A repository below the prefix. Raises UsageError where `name` cannot be one's."""
        return Repository(self._wire, self.address.path(name))

    def at(self, path: str) -> "Repository":
        """A repository by its whole path."""
        return Repository(self._wire, path)


class Repository:
    """One repository. Whatever is refused is an ImageError that says what to do."""

    def __init__(self, wire: Wire, path: str) -> None:
        self._wire = wire
        self.path = path

    def __repr__(self) -> str:
        return f"Repository({self.name})"

    @property
    def name(self) -> str:
        """As it is written in references: host and path."""
        return f"{self._wire.address.host}/{self.path}"

    def has(self, descriptor: Descriptor) -> bool:
        """Whether a blob is there."""
        answer = self._send("HEAD", f"blobs/{descriptor.digest}", self._pushing)
        return self._found(answer, "look into")

    def find(self, tag: str) -> Held | None:
        """The manifest or index that a tag names, for whoever may push; None when there is no such tag."""
        answer = self._send("GET", f"manifests/{tag}", self._pushing, headers={"Accept": _ACCEPTED})
        return _manifest(answer) if self._found(answer, "look into") else None

    def put(self, blob: Blob) -> None:
        """Have a blob there: mounted from the repository of the same registry it is in, or sent."""
        if isinstance(blob, Remote) and blob.repository.shares(self) and self._mounted(blob):
            return
        answer: Answer | None = None
        for attempt in range(IMAGE_TRIES_MAX):
            if attempt:
                self._wire.rest(attempt, answer)
                with suppress(ImageError):  # it may have arrived, and only the answer not
                    if self.has(blob.descriptor):
                        return
            answer = self._sent_whole(blob, last=attempt + 1 == IMAGE_TRIES_MAX)
            if answer is not None and answer.status == 413:
                answer = self._sent_in_pieces(blob)
            if answer is not None and answer.status == 201:
                return
            if answer is not None and answer.status not in PASSING:
                break
        assert answer is not None  # the last attempt raises
        raise self._refused(answer, "take a layer into")

    def put_manifest(self, manifest: Held, tag: str) -> None:
        """Have an image there, under a tag. Its blobs must be there."""
        kind, size = manifest.descriptor.media_type, manifest.descriptor.size
        body = Body(manifest.open, size)
        answer = self._send("PUT", f"manifests/{tag}", self._pushing, headers={"Content-Type": kind}, body=body)
        if answer.status not in (200, 201, 202):
            raise self._refused(answer, "take an image into")

    def manifest(self, wanted: str) -> Held:
        """The manifest or index that a digest or tag names. Raises ImageError when there is none, or it is another."""
        answer = self._send("GET", f"manifests/{wanted}", self._pulling, headers={"Accept": _ACCEPTED})
        if answer.status == 404:
            raise ImageError(f"There is no image {self.name}{'@' if ':' in wanted else ':'}{wanted}.")
        if answer.status != 200:
            raise self._refused(answer, "give an image of")
        found = _manifest(answer)
        if wanted.startswith("sha256:") and found.descriptor.digest != wanted:
            raise ImageError(
                f"{self.name}@{wanted} has another content than its digest says. Do not trust that registry."
            )
        return found

    def fetch(self, descriptor: Descriptor) -> BinaryIO:
        """A blob's bytes, checked, in a file without a name. Raises ImageError when it is not there or damaged."""
        try:
            file = tempfile.TemporaryFile()  # noqa: SIM115 - it is the caller's
        except OSError as error:
            raise _no_room(error) from error
        try:
            self._fetch(descriptor, file)
        except OSError as error:
            file.close()
            raise _no_room(error) from error
        except BaseException:
            file.close()
            raise
        return file

    def shares(self, other: "Repository") -> bool:
        """Whether both are in one registry."""
        return self._wire.address.url == other._wire.address.url

    def _fetch(self, descriptor: Descriptor, file: BufferedRandom) -> None:
        def empty() -> BinaryIO:
            file.seek(0)
            file.truncate()
            return file

        answer = self._wire.receive(self._api(f"blobs/{descriptor.digest}"), scopes=self._pulling, into=empty)
        if answer.status != 200:
            raise self._refused(answer, "give a layer of")
        file.seek(0)
        if hashlib.file_digest(file, "sha256").hexdigest() != descriptor.digest.removeprefix("sha256:"):
            raise ImageError(f"{self.name} has a layer that is not what its digest says: {descriptor.digest}.")
        file.seek(0)

    @property
    def _pushing(self) -> tuple[str, ...]:
        return (f"repository:{self.path}:pull,push",)

    @property
    def _pulling(self) -> tuple[str, ...]:
        return (f"repository:{self.path}:pull",)

    def _api(self, rest: str) -> str:
        return f"/v2/{self.path}/{rest}"

    def _send(
        self,
        method: str,
        rest: str,
        scopes: tuple[str, ...],
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> Answer:
        return self._wire.send(method, self._api(rest), scopes=scopes, headers=headers, body=body)

    def _found(self, answer: Answer, doing: str) -> bool:
        if answer.status not in (200, 404):
            raise self._refused(answer, doing)
        return answer.status == 200

    def _refused(self, answer: Answer, doing: str) -> ImageError:
        host = self._wire.address.host
        return refused(answer, host=host, path=self.path, doing=f"{doing} {self.path}", login=self._wire.login)

    def _mounted(self, blob: "Remote") -> bool:
        """Whether the registry took a blob over from another of its repositories. It may refuse to, and need not say
        why."""
        query = f"blobs/uploads/?mount={quote(blob.descriptor.digest)}&from={quote(blob.repository.path, safe='')}"
        scopes = (*self._pushing, *blob.repository._pulling)
        return self._send("POST", query, scopes).status == 201

    def _begun(self) -> tuple[str, int]:
        """Where a blob is to be sent, and how small a piece may be."""
        answer = self._send("POST", "blobs/uploads/", self._pushing)
        if answer.status != 202 or "Location" not in answer.headers:
            raise self._refused(answer, "take a layer into")
        least = answer.headers.get("OCI-Chunk-Min-Length", "")
        return self._wire.resolve(answer.headers["Location"]), int(least) if least.isdecimal() else 0

    def _sent_whole(self, blob: Blob, *, last: bool) -> Answer | None:
        """The answer to a blob sent in one request; None when the connection broke off, unless it was the `last`
        try."""
        where, _ = self._begun()
        try:
            return self._upload("PUT", _with(where, blob), Body(blob.open, blob.descriptor.size), {})
        except ImageError:
            if last:
                raise
            return None

    def _sent_in_pieces(self, blob: Blob) -> Answer:
        """The answer to the last piece of a blob, or to the first one that was refused."""
        where, least = self._begun()
        step = max(IMAGE_CHUNK_BYTES, least)
        if step > IMAGE_CHUNK_BYTES_MAX:
            raise ImageError(
                f"{self.name} takes layers in pieces of {least:,} bytes, no smaller; we send no such pieces."
            )
        total = blob.descriptor.size
        with blob.open() as source:
            for start in range(0, total, step):
                piece = source.read(step)
                last = start + step >= total
                headers = {"Content-Range": f"{start}-{start + len(piece) - 1}"}
                body = Body(_opener(piece), len(piece))
                answer = self._upload("PUT" if last else "PATCH", _with(where, blob) if last else where, body, headers)
                if last or answer.status not in (201, 202, 204):
                    return answer
                where = self._wire.resolve(answer.headers.get("Location", where))
        raise AssertionError("a blob has a byte at least")

    def _upload(self, method: str, where: str, body: Body, headers: dict[str, str]) -> Answer:
        """One attempt, and no second: what was sent before it may or may not count."""
        return self._wire.send(
            method,
            where,
            scopes=self._pushing,
            headers=_BYTES | headers,
            body=body,
            tries=1,
            seconds_max=IMAGE_STORE_SECONDS_MAX,
        )


@dataclass(frozen=True, slots=True)
class Remote:
    """A blob in a repository."""

    descriptor: Descriptor
    repository: Repository

    def open(self) -> BinaryIO:
        """Its bytes, fetched."""
        return self.repository.fetch(self.descriptor)


def _no_room(error: OSError) -> ImageError:
    return ImageError(
        f"A layer cannot be kept for a moment: {error.strerror or error}. TMPDIR may name a folder with more room."
    )


def _manifest(answer: Answer) -> Held:
    return held(answer.headers.get("Content-Type", ""), answer.body)


def _with(where: str, blob: Blob) -> str:
    return f"{where}{'&' if '?' in where else '?'}digest={quote(blob.descriptor.digest)}"


def _opener(piece: bytes) -> Callable[[], BinaryIO]:
    return lambda: BytesIO(piece)
