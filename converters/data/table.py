"""DATA in a .csv or .jsonl of `text,label`: an index of where each line begins, and texts read when asked for."""

import csv
import io
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from converters.data.classes import class_index
from converters.data.dataset import fitting
from converters.data.stored import Descriptor
from converters.data.targets import Labels, Target, TargetKind, class_targets
from lepton_edge.bundle.binding import Arrays
from lepton_edge.bundle.manifest import ModelSignature
from lepton_edge.errors import DataError
from lepton_edge.preprocess.pipeline import Pipeline
from lepton_edge.preprocess.spec import Step
from lepton_edge.preprocess.text import MAX_TEXT

MAX_RECORD = 2 * MAX_TEXT
"""Bytes of one record: a text may take twice its size where its quotes are doubled."""
MAX_CLASSES = 65_536


class Record(NamedTuple):
    """A text and its label as written; label: None where the data carry none. line: where it begins, from 1."""

    text: str
    label: str | None
    line: int


class _Place(NamedTuple):
    offset: int
    size: int
    line: int


class _Json(msgspec.Struct):
    text: str
    label: str | int | float | None = None


class TableDataset:
    """Texts that are read and tokenized when they are asked for."""

    def __init__(
        self,
        table: "_Table",
        labels: Labels | None,
        *,
        signature: ModelSignature,
        pipeline: Pipeline,
    ) -> None:
        self._table = table
        self._signature = signature
        self._pipeline = pipeline
        self._targets = class_targets(labels)

    @property
    def labels(self) -> Labels | None:
        return self._targets.classes

    @property
    def targets(self) -> TargetKind:
        return self._targets.kind

    def __len__(self) -> int:
        return len(self._table)

    def inputs(self, index: int) -> Arrays:
        record = self._table.read(index)
        where = f"{self._table.where}, line {record.line}"
        sample = {name: one[np.newaxis] for name, one in self._pipeline.load(record.text, name=where).items()}
        return fitting(sample, self._signature, where=where)

    def target(self, index: int) -> Target:
        return self._targets.at(index)

    def describe(self, index: int) -> str:
        return f"line {self._table.line(index)}"


def open_table(
    path: Path,
    signature: ModelSignature,
    *,
    steps: Sequence[Step],
    files: Mapping[str, bytes],
    class_names: Sequence[str],
) -> TableDataset:
    """Read through the file once for its lines and labels; tokenize the first, so that a misfit shows at once.

    Args:
        path: .csv with a header that names the columns `text` and, where there are labels, `label`; or .jsonl with an
            object of these a line. UTF-8. Labels are class names or class indices.
        signature: of the model.
        steps: from a text to the model's inputs.
        files: what the steps name.
        class_names: by class index.

    Raises:
        DataError: unreadable, a line that is no record (named by its number), a label without a class, labels on some
            lines only, no preprocessing, or texts that do not fit the model.
    """
    if not steps:
        raise DataError(f"{path}: how a text becomes the model's input is not known: give --preprocess P.toml")
    pipeline = Pipeline(steps, files=files, inputs=[spec.name for spec in signature.inputs])
    if pipeline.family != "text":
        raise DataError(f"{path}: holds texts, and preprocessing has no text.tokenize step for them")
    try:
        table = _Csv(path) if path.suffix.lower() == ".csv" else _Jsonl(path)
    except OSError as cause:
        raise DataError(f"{path}: {cause.strerror or cause}") from cause
    labels = _labels(table, signature, class_names)
    dataset = TableDataset(table, labels, signature=signature, pipeline=pipeline)
    dataset.inputs(0)
    return dataset


class _Table:
    """The places of records in a file. Subclasses know how records are written."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self._file = Descriptor.opened(path)
        self._offsets, self._sizes, self._lines = array("q"), array("q"), array("q")
        self.names: dict[str, int] = {}
        """Labels as written, numbered as they come."""
        self.numbers = array("q")
        """Of each record, its label's number; -1 where it has none."""
        with path.open("rb") as file:
            for place, record in self._records(file):
                self._add(place, record)
        if not self._offsets:
            raise DataError(f"{path}: no samples")

    def _records(self, file: io.BufferedReader) -> Iterator[tuple[_Place, Record]]:
        raise NotImplementedError

    def _parse(self, data: bytes, line: int) -> Record:
        raise NotImplementedError

    def _add(self, place: _Place, record: Record) -> None:
        if not record.text.strip():
            raise DataError(f"{self.where}, line {place.line}: an empty text")
        number = -1 if record.label is None else self.names.setdefault(record.label, len(self.names))
        if len(self.names) > MAX_CLASSES:
            raise DataError(f"{self.where}, line {place.line}: more than {MAX_CLASSES} different labels")
        if self.numbers and (number < 0) is not (self.numbers[0] < 0):
            raise DataError(f"{self.where}, line {place.line}: some lines have a label and some have none")
        self._offsets.append(place.offset)
        self._sizes.append(place.size)
        self._lines.append(place.line)
        self.numbers.append(number)

    def __len__(self) -> int:
        return len(self._offsets)

    def line(self, index: int) -> int:
        return self._lines[index]

    def read(self, index: int) -> Record:
        return self._parse(self._file.read(self._offsets[index], self._sizes[index]), self._lines[index])

    def decoded(self, data: bytes, line: int) -> str:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as cause:
            raise DataError(f"{self.where}, line {line}: not UTF-8 text ({cause})") from cause

    def check_length(self, size: int, line: int) -> None:
        if size > MAX_RECORD:
            raise DataError(f"{self.where}, line {line}: more than {MAX_RECORD} bytes in one sample")


class _Jsonl(_Table):
    def _records(self, file: io.BufferedReader) -> Iterator[tuple[_Place, Record]]:
        offset = line = 0
        while data := file.readline(MAX_RECORD + 1):
            line += 1
            self.check_length(len(data), line)
            if data.strip():
                yield _Place(offset, len(data), line), self._parse(data, line)
            offset += len(data)

    def _parse(self, data: bytes, line: int) -> Record:
        try:
            record = msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"), type=_Json)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as cause:
            raise DataError(f'{self.where}, line {line}: no {{"text": ..., "label": ...}} ({cause})') from cause
        label = record.label
        if isinstance(label, float):
            if not label.is_integer():
                raise DataError(f"{self.where}, line {line}: label {label} is no class; give an index or a name")
            label = int(label)
        return Record(record.text, None if label is None else str(label), line)


class _Csv(_Table):
    """RFC 4180, as Python's csv module reads it: fields with commas, quotes or line ends stand in quotes."""

    def _records(self, file: io.BufferedReader) -> Iterator[tuple[_Place, Record]]:
        lines = _Lines(self, file)
        reader = csv.reader(lines, strict=True)
        self._columns = self._header(self._next(reader, 1), 1)
        while True:
            start, line = lines.offset, lines.count + 1
            row = self._next(reader, line)
            if row is None:
                return
            if row:
                yield _Place(start, lines.offset - start, line), self._record(row, line)

    def _next(self, reader: Iterator[list[str]], line: int) -> list[str] | None:
        limit = csv.field_size_limit(MAX_RECORD)
        try:
            return next(reader, None)
        except csv.Error as cause:
            raise DataError(f"{self.where}, line {line}: no CSV ({cause})") from cause
        finally:
            csv.field_size_limit(limit)

    def _header(self, row: list[str] | None, line: int) -> dict[str, int]:
        names = [name.strip().removeprefix("\ufeff") for name in row or []]
        if names.count("text") != 1 or names.count("label") > 1:
            raise DataError(f"{self.where}, line {line}: the header must name the columns text and label, not {names}")
        self._width = len(names)
        return {name: names.index(name) for name in ("text", "label") if name in names}

    def _parse(self, data: bytes, line: int) -> Record:
        row = self._next(csv.reader(io.StringIO(self.decoded(data, line), newline=""), strict=True), line)
        return self._record(row or [], line)

    def _record(self, row: list[str], line: int) -> Record:
        if len(row) != self._width:
            raise DataError(f"{self.where}, line {line}: {len(row)} fields, the header has {self._width}")
        label = row[self._columns["label"]].strip() if "label" in self._columns else None
        return Record(row[self._columns["text"]], label or None, line)


class _Lines:
    """Lines of a file as text, with the place behind the last one."""

    def __init__(self, table: _Table, file: io.BufferedReader) -> None:
        self._table, self._file = table, file
        self.offset = self.count = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        data = self._file.readline(MAX_RECORD + 1)
        if not data:
            raise StopIteration
        self.count += 1
        self._table.check_length(len(data), self.count)
        self.offset += len(data)
        return self._table.decoded(data, self.count)


def _labels(table: _Table, signature: ModelSignature, class_names: Sequence[str]) -> Labels | None:
    if not table.names:
        return None
    index = class_index(table.names, signature, class_names, where=table.where, what="label")
    meaning = np.array([index[name] for name in table.names], dtype=np.int64)
    return np.asarray(meaning[np.frombuffer(table.numbers, np.int64)], np.int64)
