"""Inputs that are nearly right: a file's tokens or bytes changed at random, among them by hostile ones.

The same random numbers give the same input, so a test that runs some is the same test each time.
"""

from __future__ import annotations

import json
import random
import re
import struct
from collections.abc import Callable

__all__ = ["TOKENS", "mutate_bytes", "mutate_either", "mutate_tensors", "mutate_text", "prefixed"]

WORDS = re.compile(rb'"(?:[^"\\\n]|\\.)*"|[\w.+-]+|\s+|.', re.DOTALL)
TOKENS = (
    b"NaN", b"Infinity", b"-Infinity", b"nan", b"inf", b"-1", b"0", b"1e999", b"1e300", b"-0.0", b"0.5",
    b"1" + b"0" * 400, b"9" * 5000, b"9223372036854775808", b"2147483648", b"4294967296", b"true", b"null",
    b"[]", b"{}", b'""', b'"\\u0000"', b'"\\ud800"', b'"\\udcff"', b'"../../../../etc/passwd"', b"..", b"/",
    b'"/etc/passwd"', b'"/dev/zero"', b'"CON"', b'"nul.png"', b'"a/../../b"', b'"<script>alert(1)</script>"',
    b'"{0.__class__}"', b'"{}{}"', b'"%s%n%x"', b'"\\u001b[2J"', b'"\\u202e"', b'"os:system"', b'"hub:a/b"',
    b'"' + b"a" * 5000 + b'"', b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\x1b[2J", b"\xe2\x80\xa8", b"\n",
    b"\r\n", b",", b":", b"=", b"[", b"]", b"{", b"}", b"#", b'"', b"'", b"'''", b'"""', b"[[", b"]]", b"&a ",
    b"*a", b"!!python/object:os.system",
)  # fmt: skip
"""What is put in a token's place: numbers beyond all range, paths out of a folder, markup, broken text."""
NESTED = 100_000
INTEGERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 62)
LARGEST = 1 << 20  # bytes of an input


def mutate_text(data: bytes, rng: random.Random) -> bytes:
    """Text in which some tokens are others, double, gone, or nested deeply."""
    words = WORDS.findall(data) or [b""]
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        i, kind = rng.randrange(len(words)), rng.randrange(12)
        if kind < 5:
            words[i] = rng.choice(TOKENS)
        elif kind == 5:
            words[i] = rng.choice(words)
        elif kind == 6:
            del words[i : i + rng.choice((1, 1, 2, 5, 20))]
        elif kind == 7:
            words[i:i] = words[i : i + rng.choice((1, 2, 5, 20))]
        elif kind == 8:
            words[i:i] = [rng.choice(TOKENS)]
        elif kind == 9 and rng.randrange(20) == 0:
            opened, closed = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
            words[i] = opened * NESTED + words[i] + closed * NESTED
        elif kind == 10:
            j = rng.randrange(len(words))
            words[i], words[j] = words[j], words[i]
        else:
            return mutate_bytes(b"".join(words), rng)
        words = words or [b""]
    return b"".join(words)[:LARGEST]


def mutate_either(data: bytes, rng: random.Random) -> bytes:
    """As `mutate_text`, or as `mutate_bytes`."""
    return rng.choice((mutate_text, mutate_bytes))(data, rng)


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Bytes of which some are others, double or gone, or hold a whole number that is the least of a kind."""
    out = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        i, kind = rng.randrange(len(out)), rng.randrange(6)
        if kind == 0:
            out[i] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[i] = rng.randrange(256)
        elif kind == 2:
            form = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
            size = struct.calcsize(form)
            out[i : i + size] = struct.pack(form, rng.choice(INTEGERS) % (1 << 8 * size))
        elif kind == 3:
            del out[i : i + rng.choice((1, 4, 16, 256))]
        elif kind == 4:
            out[i:i] = out[i : i + rng.choice((1, 4, 16, 256))]
        else:
            del out[rng.randrange(len(out)) :]
        if not out:
            out = bytearray(b"\0")
    return bytes(out[:LARGEST])


def mutate_tensors(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file whose header lies: of its tokens some are others, and its length is as it should be
    or not.
    """
    if len(data) < 9 or rng.randrange(3) == 0:
        return mutate_bytes(data, rng)
    length = min(struct.unpack("<Q", data[:8])[0], len(data) - 8)
    header, rest = data[8 : 8 + length], data[8 + length :]
    header = _with_another_tensor(header, rng) if rng.randrange(3) == 0 else mutate_text(header, rng)
    return struct.pack("<Q", len(header) + (rng.randrange(20) == 0)) + header + rest


def _with_another_tensor(header: bytes, rng: random.Random) -> bytes:
    """The header with one tensor's kind, shape or place changed, which is still JSON."""
    try:
        values = json.loads(header)
        name = rng.choice(sorted(values))
        entry = values[name]
        key = rng.choice(("dtype", "shape", "data_offsets", "name"))
        if key == "name":
            values[rng.choice(("x", "score_N", "", "../a"))] = values.pop(name)
        elif key == "dtype":
            entry[key] = rng.choice(("F32", "F64", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3"))
        else:
            numbers = list(entry[key])
            numbers[rng.randrange(len(numbers))] = rng.choice((0, 1, 2, -1, 1 << 40, 1 << 63, 3.5))
            entry[key] = numbers
        return json.dumps(values).encode()
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return mutate_text(header, rng)


def prefixed(mutate: Callable[[bytes, random.Random], bytes]) -> Callable[[bytes, random.Random], bytes]:
    """Changes all but the first byte, which says what the others are."""
    return lambda data, rng: data[:1] + mutate(data[1:], rng)
