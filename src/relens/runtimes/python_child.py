"""The other end of a model in Python: started by its path in an interpreter of the model's own, which has no relens.

Frames on the file descriptor that it is given: a JSON head and raw tensors. It needs numpy and nothing else, and any
Python from 3.9. It ends when the socket does.
"""

from __future__ import annotations

import importlib
import json
import socket
import struct
import sys
import traceback
from typing import Any

PREFIX = struct.Struct("<IQ")  # bytes of the head, bytes of the body


def main() -> None:
    """Load the entry point, say so, and answer until the socket ends. Arguments: descriptor, folder, entry point."""
    line = socket.socket(fileno=int(sys.argv[1]))
    folder, entry = sys.argv[2:]
    sys.path.insert(0, folder)
    try:
        import numpy  # noqa: ICN001, PLC0415 - whatever fails here is to be told

        module, _, name = entry.partition(":")
        function = getattr(importlib.import_module(module), name)
        if not callable(function):
            raise TypeError(f"{entry} is no function")  # noqa: TRY301
    except BaseException as error:  # noqa: BLE001 - the model's code may raise anything
        send(line, {"error": told(error)}, [])
        return
    send(line, {"python": sys.version.split()[0], "numpy": numpy.__version__}, [])
    while (frame := receive(line)) is not None:
        head, body = frame
        inputs = numpy.frombuffer(body, "<f4").reshape(head["shape"])
        try:
            tensors = outputs_of(numpy, function(inputs))
        except Exception as error:  # noqa: BLE001 - as above
            send(line, {"error": told(error)}, [])
        else:
            said = [{"name": key, "shape": list(tensor.shape)} for key, tensor in tensors.items()]
            send(line, {"tensors": said}, [tensor.tobytes() for tensor in tensors.values()])


def outputs_of(numpy: Any, given: Any) -> dict[str, Any]:
    """What a function returned, as contiguous little-endian float32: a mapping, or one array, whose name is ""."""
    named = given if isinstance(given, dict) else {"": given}
    return {str(key): numpy.ascontiguousarray(value, dtype="<f4") for key, value in named.items()}


def told(error: BaseException) -> str:
    """Type, message, and the place in the model's own code."""
    frames = traceback.extract_tb(error.__traceback__)
    last = [frame for frame in frames if frame.filename != __file__][-1:]
    place = "".join(f", in {frame.filename.rpartition('/')[2]} line {frame.lineno}" for frame in last)
    return f"{type(error).__name__}: {error}{place}"


def send(line: socket.socket, head: dict[str, Any], parts: list[bytes]) -> None:
    """One frame."""
    text = json.dumps(head).encode()
    line.sendall(PREFIX.pack(len(text), sum(map(len, parts))) + text)
    for part in parts:
        line.sendall(part)


def receive(line: socket.socket) -> tuple[dict[str, Any], bytearray] | None:
    """One frame; None at the end."""
    prefix = read(line, PREFIX.size)
    if prefix is None:
        return None
    head_length, body_length = PREFIX.unpack(prefix)
    head, body = read(line, head_length), read(line, body_length)
    return None if head is None or body is None else (json.loads(head), body)


def read(line: socket.socket, count: int) -> bytearray | None:
    """So many bytes; None if the socket ends before."""
    data = bytearray(count)
    view = memoryview(data)
    while view:
        got = line.recv_into(view)
        if not got:
            return None
        view = view[got:]
    return data


if __name__ == "__main__":
    main()
