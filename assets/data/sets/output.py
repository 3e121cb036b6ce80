"""Writes the files of a set, and orders rows without a seed."""

import hashlib


def by_hash(rows):
    """Rows in the order of their sha256: a random order that is the same everywhere."""
    return sorted(rows, key=digest)


def digest(text):
    return hashlib.sha256(text.encode("utf-8")).digest()


def write_lines(path, lines):
    write(path, "".join(line + "\n" for line in lines).encode("utf-8"))


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
