"""Take the texts out of a file's pickles: arguments of opcodes, with nothing unpickled.

Limits: texts as they lie there. One that the pickle puts together from pieces is seen in pieces.
"""

from __future__ import annotations

from collections.abc import Iterator

from adapterscan.errors import FileProblem
from adapterscan.formats.pickle_file import PickleFile
from adapterscan.formats.pickle_opcodes import LexicalError, lex
from adapterscan.formats.zip_archive import read_member

_MOST_IN_A_ROW = 1000


def texts(found: PickleFile, limit: int) -> Iterator[tuple[str, str]]:
    """Yield (member, its texts on a line each) of the file itself, and of members of its archive.

    At most `limit` bytes of each are looked at. Archives in archives are left out.
    """
    names = {stream.member for stream in found.streams}
    try:
        if "" in names:
            yield "", _joined(found.file.read(0, limit), found.streams[0].found.start)
        for member in found.archive.members if found.archive else ():
            if member.name in names:
                names.discard(member.name)  # of several that are called so, the first
                yield member.name, _joined(read_member(found.file, member, limit)[0], 0)
    except FileProblem:
        return  # what could not be read is told by who looked for pickles


def _joined(data: bytes, start: int) -> str:
    pieces: list[str] = []
    at = start
    for _ in range(_MOST_IN_A_ROW):
        end = at
        try:
            for name, argument, position in lex(data, at):
                end = position + (name == "STOP")
                if isinstance(argument, str):
                    pieces.append(argument)
                elif isinstance(argument, bytes):
                    pieces.append(argument.decode("latin-1"))
        except LexicalError:
            break
        if end <= at:
            break
        at = end
    return "\n".join(pieces)
