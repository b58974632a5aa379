"""Protobuf: the frame names a file of messages and, by indexes, the message.

A registry returns the file as text, which the official compiler reads, or compiled, in base64. A message becomes its
JSON mapping as defined by Protobuf, with the names of the `.proto` file: 64-bit numbers as text, enums by name, bytes
in base64, timestamps in RFC 3339; fields with their default value are left out.
"""

import re
import sys
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from errno import EEXIST, EISDIR, ENAMETOOLONG, ENOTDIR
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from signal import SIGHUP, SIGINT, SIGKILL, SIGTERM, Signals
from subprocess import TimeoutExpired, run
from tempfile import TemporaryDirectory
from typing import Any, Final

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass

from connector.shaping.decoded import FormatAwayError
from connector.shaping.formats import confluent
from connector.shaping.formats.schemas import MAX_TEXT, Schema
from connector.shaping.refusing import UndecodableError

MAX_LEVELS: Final = 32
"""Maximum number of levels in the indexes of a frame."""

MAX_FILES: Final = 100
"""Compiled files that are cached."""

COMPILE_SECS: Final = 10.0
_FROM_OUTSIDE: Final = frozenset({SIGHUP, SIGINT, SIGKILL, SIGTERM})
"""Signals that end the compiler whatever it compiles: sent to all our processes, or out of memory."""
_FOR_ITS_NAME: Final = frozenset({EEXIST, EISDIR, ENAMETOOLONG, ENOTDIR})
"""Errors because of a file's name; others come from the machine, and may go away."""
_FILE: Final = "__schema__.proto"
"""The name of the file itself: no reference has it."""
_KNOWN: Final = ("google/protobuf/", "google/type/", "google/api/", "google/rpc/")
"""Files that may be imported without a reference."""


def read_indexes(data: bytes, start: int) -> tuple[tuple[int, ...], int]:
    """Return the indexes of a message in its file, and the offset after them.

    They are zigzag varints, preceded by their count; a count of 0 is short for the first message. Raises
    `UndecodableError` if there are none.
    """
    count, at = _varint(data, start)
    if count == 0:
        return (0,), at
    if not 0 < count <= MAX_LEVELS:
        raise UndecodableError("not_framed", "the frame holds no indexes of a message")
    indexes = []
    for _ in range(count):
        index, at = _varint(data, at)
        indexes.append(index)
    return tuple(indexes), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    for byte in data[at : at + 5]:
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
        shift += 7
    raise UndecodableError("not_framed", "the frame ends within the indexes of a message")


class ProtobufFile:
    """The messages of one schema. Raises `UndecodableError` for a schema that cannot be used."""

    def __init__(self, schema: Schema, message: str | None) -> None:
        self._message = message
        self._pool = DescriptorPool()
        files = _files_of(schema)
        self._added: set[str] = set()
        try:
            for name in files:
                self._add(name, files)
            self._file = self._pool.FindFileByName(_FILE)
        except UndecodableError:
            raise
        except Exception as error:
            raise UndecodableError("schema_unusable", f"the registry's schema is no valid Protobuf: {error}") from error

    def _add(self, name: str, files: Mapping[str, FileDescriptorProto]) -> None:
        if name in self._added:
            return
        self._added.add(name)
        file = files[name] if name in files else _known_file(name)
        for needed in file.dependency:
            self._add(needed, files)
        self._pool.Add(file)

    def reader(self, indexes: Sequence[int]) -> Callable[[bytes, int], Any]:
        """Return a function that reads a message from an offset on; raises `UndecodableError` for any other message."""
        described = self._described(indexes)
        if self._message is not None and described.full_name != self._message:
            text = f"the message is {described.full_name}; format.message is {self._message}"
            raise UndecodableError("unexpected_message", text)
        kind: Any = GetMessageClass(described)
        parse, pool = kind.FromString, self._pool

        def read_from(value: bytes, start: int) -> Any:
            return MessageToDict(parse(value[start:]), preserving_proto_field_name=True, descriptor_pool=pool)

        return read_from

    def _described(self, indexes: Sequence[int]) -> Descriptor:
        messages: Sequence[Descriptor] = list(self._file.message_types_by_name.values())
        found: Descriptor | None = None
        for index in indexes:
            if not 0 <= index < len(messages):
                raise UndecodableError("not_decodable", f"the schema has no message with the indexes {list(indexes)}")
            found = messages[index]
            messages = found.nested_types
        assert found is not None, "a frame names one message at least"
        return found


class ProtobufFiles:
    """The files of a stream's messages, each compiled once: a file has many messages.

    `message` is the full name of the only expected message, if there is one.
    """

    def __init__(self, message: str | None) -> None:
        self._message = message
        self._files: OrderedDict[int, tuple[Schema, ProtobufFile | UndecodableError]] = OrderedDict()
        """By identity of the schema, which is kept alive with it."""

    def reader(self, schema: Schema, indexes: Sequence[int]) -> Callable[[bytes, int], Any]:
        """Return the reader of the message with these indexes; raises `UndecodableError` if there is none."""
        _, file = self._files.get(id(schema), (schema, None))
        if file is None:
            try:
                file = ProtobufFile(schema, self._message)
            except UndecodableError as error:
                file = error
            self._files[id(schema)] = (schema, file)
            if len(self._files) > MAX_FILES:
                self._files.popitem(last=False)
        if isinstance(file, UndecodableError):
            raise file
        return file.reader(indexes)


def _files_of(schema: Schema) -> dict[str, FileDescriptorProto]:
    """Return all files of a schema by name, compiled; raises `UndecodableError` if that is impossible."""
    texts = {**{name: reference.text for name, reference in schema.references.items()}, _FILE: schema.text}
    read = {name: _from_base64(text) for name, text in texts.items()}
    files = {name: file for name, file in read.items() if file is not None}
    if not files:
        return _compile(texts)
    if len(files) < len(texts):
        text = "is compiled while what it refers to is not, or the other way round; register both in one form"
        raise UndecodableError("schema_unusable", text)
    for name, file in files.items():
        file.name = name
    return files


def _from_base64(text: str) -> FileDescriptorProto | None:
    """Return a file that a registry returned compiled, None for the text of a `.proto` file."""
    try:
        return FileDescriptorProto.FromString(b64decode(text, validate=True))
    except ValueError:
        return None


def _compile(texts: Mapping[str, str]) -> dict[str, FileDescriptorProto]:
    """Return compiled files; in a process of its own, which reports what is wrong and can be killed.

    Raises `FormatAwayError` if this machine is at fault, for instance without a temporary folder.
    """
    try:
        return _compiled(texts)
    except (OSError, TimeoutExpired) as error:
        text = f"a schema cannot be compiled on this machine: {type(error).__name__}: {error}"
        raise FormatAwayError("schema_registry", text[:MAX_TEXT]) from error


def _compiled(texts: Mapping[str, str]) -> dict[str, FileDescriptorProto]:
    with TemporaryDirectory(prefix="trackly-schema-") as scratch:
        folder, out = Path(scratch, "in"), Path(scratch, "out")
        for name, text in {**confluent.FILES, **texts}.items():
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or not re.fullmatch(r"[A-Za-z0-9_./-]{1,500}", name):
                raise UndecodableError("schema_unusable", "has a reference whose name is no relative path")
            file = folder / path
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
            except OSError as error:
                if error.errno not in _FOR_ITS_NAME:
                    raise
                told = "has a reference whose name cannot be a file's beside the others"
                raise UndecodableError("schema_unusable", told) from error
        command = [sys.executable, "-I", "-m", "grpc_tools.protoc", f"-I{folder}", *_includes()]
        command += ["--include_imports", f"--descriptor_set_out={out}", _FILE]
        ended = run(command, capture_output=True, text=True, timeout=COMPILE_SECS, check=False, cwd=folder)  # noqa: S603
        if -ended.returncode in _FROM_OUTSIDE:
            raise ChildProcessError(f"the compiler was ended by {Signals(-ended.returncode).name}")
        if ended.returncode and f"{out}: " in ended.stderr:  # it has read the schema, but cannot write the result
            raise ChildProcessError(f"the compiler says: {ended.stderr.strip()}")
        if ended.returncode:
            said = ended.stderr.replace(f"{folder}/", "").strip()
            raise UndecodableError("schema_unusable", f"is no valid Protobuf: {said}")
        return {file.name: file for file in FileDescriptorSet.FromString(out.read_bytes()).file}


def _includes() -> list[str]:
    """Return the include paths of files that may be imported without a reference."""
    spec = find_spec("google")
    folders = () if spec is None else spec.submodule_search_locations or ()
    return [f"-I{Path(folder).parent}" for folder in folders]


def _known_file(name: str) -> FileDescriptorProto:
    """Return a file that comes with Protobuf, Google's common protos, or Confluent's serializers."""
    if name in confluent.FILES:
        return _compile({_FILE: f'syntax = "proto3"; import "{name}";'})[name]
    found = FileDescriptorProto()
    if not (name.startswith(_KNOWN) and re.fullmatch(r"[a-z0-9_/]+\.proto", name)):
        raise UndecodableError("schema_unusable", f"imports {name}, to which the registry gave no reference")
    try:
        module = import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2")
    except ImportError:
        raise UndecodableError("schema_unusable", f"imports {name}, which is not known here") from None
    module.DESCRIPTOR.CopyToProto(found)
    return found
