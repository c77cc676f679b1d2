"""Reading YAML files into checked records."""

from keyhop.files.places import Address, Fingerprint, SecretUnavailable, Source
from keyhop.files.reading import CheckError, FileError, Problem, parse, read
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
    "parse",
    "read",
    "schema",
    "write",
]
