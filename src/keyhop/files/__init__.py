"""Reading YAML files into checked records."""

from keyhop.files.places import Address, Fingerprint, SecretUnavailable, Source
from keyhop.files.reading import CheckError, FileError, Problem, UnreadableFileError, parse, read
from keyhop.files.schema import schema
from keyhop.files.writing import write

__all__ = [
    "Address",
    "CheckError",
    "FileError",
    "Fingerprint",
    "Problem",
    "SecretUnavailable",
    "Source",
    "UnreadableFileError",
    "parse",
    "read",
    "schema",
    "write",
]
