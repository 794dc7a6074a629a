"""How a file is damaged or forged: functions of a random.Random and the file's bytes that return other bytes.

bytes      anything: bits, chunks, integers of a header
text       lines, numbers, letters that are no text
JSON       keys, types, huge numbers, deep nesting
checkpoint the bytes, a member of the archive (with a right CRC), the pickle in it, or what the pickle holds
safetensors, SentencePiece models, recordings, .idx: their headers and fields, with right lengths and digests
"""

import argparse
import collections
import copy
import functools
import hashlib
import io
import json
import math
import re
import struct
import zipfile
import zlib

import torch

DEEP = "a list in a list, and so on"  # stands for what json.dumps cannot write
INTERESTING = (0, 1, 2, 7, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**62,
               2**63 - 1, 2**64 - 1)
SPELLINGS = (b"NaN", b"-Infinity", b"1e999", b"-1", b"0", b"99999999999999999999", b"9" * 5000, b"0.5", b"true", b"",
             b"\0", b"\r", b"\x85", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\xff\xfe", b"\xef\xbb\xbf", b"\\ud800", b'"',
             b"\t", b" ", b"\n\n", "\u0130".encode(), b"<mask>", b"</s>", b"a" * 100_000, b"${oc.env:HOME}", b"../..")
PLAIN = (None, True, False, -1, 0, 1, 3, 2**31, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e308, math.nan, math.inf, "", "x",
         "-1", "0:1", "\ud800", "\0", "a\nb", "x" * 100_000, "${oc.env:HOME}", [], {}, [None], [0], {"a": 1}, [[1], 2])
EVIL = (b"posix\nsystem\n", b"builtins\neval\n", b"builtins\nexec\n", b"os\nsystem\n", b"torch\nload\n",
        b"torch.hub\nload\n", b"numpy\nload\n", b"subprocess\nPopen\n", b"nowhere\nnothing\n")


def of_bytes(draw, content):
    """One to four changes."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        draw.choice(BYTES)(draw, data)
    return bytes(data)


def place(draw, data, size=1):
    """Where `size` bytes begin: headers, at either end, more often than the rest."""
    last = max(0, len(data) - size)
    return draw.choice((draw.randint(0, last), draw.randint(0, min(last, 64)), draw.randint(max(0, last - 64), last)))


def chunk(draw, data):
    begin = place(draw, data)
    return slice(begin, begin + draw.choice((1, 2, 8, 64, 1000, len(data))))


def flip(draw, data):
    if data:
        data[place(draw, data)] ^= 1 << draw.randrange(8)


def set_byte(draw, data):
    if data:
        data[place(draw, data)] = draw.choice((0, 1, 9, 10, 32, 34, 46, 92, 127, 128, 192, 254, 255))


def set_integer(draw, data):
    form = draw.choice(("<H", "<I", "<Q", ">I", ">Q"))
    packed = struct.pack(form, draw.choice(INTERESTING) % 256 ** struct.calcsize(form))
    begin = place(draw, data, len(packed))
    data[begin : begin + len(packed)] = packed


def cut(draw, data):
    del data[place(draw, data):]


def remove_chunk(draw, data):
    del data[chunk(draw, data)]


def repeat_chunk(draw, data):
    where = chunk(draw, data)
    data[where.start : where.start] = data[where] * draw.choice((1, 1, 10))


def insert(draw, data):
    begin = place(draw, data)
    data[begin:begin] = draw.choice((draw.randbytes(draw.randint(1, 40)), bytes(100)))


def swap_chunks(draw, data):
    one, other = chunk(draw, data), chunk(draw, data)
    data[one], data[other] = data[other], data[one]


BYTES = (flip, flip, set_byte, set_integer, set_integer, cut, remove_chunk, repeat_chunk, insert, swap_chunks)


def of_text(draw, content):
    """Lines and spellings, or bytes."""
    if draw.random() < 0.3:
        return of_bytes(draw, content)
    if draw.random() < 0.5:
        return with_other_spelling(draw, content)
    lines = content.splitlines(keepends=True)
    begin = draw.randrange(len(lines) + 1)
    end = begin + draw.choice((1, 1, 1, 5, len(lines)))
    other = draw.choice((lines[:1], [], lines[begin:end] * 2, [draw.choice(SPELLINGS) + b"\n"], lines[begin:end][::-1]))
    return b"".join([*lines[:begin], *other, *lines[end:]])


def with_other_spelling(draw, content):
    """A number, a word, or a place between letters becomes something else."""
    pattern = draw.choice((rb"-?\d+(\.\d+)?", rb"\w+", rb"[^\w\s]", rb"[\t ]"))
    places = [match.span() for match in re.finditer(pattern, content[:100_000])] or [(0, 0)]
    begin, end = draw.choice(places)
    return content[:begin] + draw.choice(SPELLINGS) + content[end:]


def of_json(draw, content):
    if draw.random() < 0.3:
        return of_text(draw, content)
    tree = with_other_leaf(draw, json.loads(content), (*PLAIN, DEEP))
    brackets = draw.choice(("[", '{"a":'))
    deep = brackets * 100_000 + ("]" if brackets == "[" else "0}") * 100_000
    return json.dumps(tree).replace(json.dumps(DEEP), deep).encode()


def of_json_lines(draw, content):
    lines = content.splitlines()
    if draw.random() < 0.3:
        return of_text(draw, content)
    at = draw.randrange(len(lines))
    return b"\n".join([*lines[:at], of_json(draw, lines[at]), *lines[at + 1 :]]) + b"\n"


def with_other_leaf(draw, tree, values):
    """A copy of nested dicts and lists in which one to three places hold something else, or nothing. Levels are chosen
    one after the other, so that a large part does not hide the small ones."""
    tree = copy.copy(tree) if isinstance(tree, (dict, list)) else tree
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        tree = changed(draw, tree, values)
    return tree


def changed(draw, tree, values):
    if not isinstance(tree, (dict, list)) or not tree or draw.random() < 0.05:
        return draw.choice(values)
    tree = copy.copy(tree)
    key = draw.choice(list(tree)) if isinstance(tree, dict) else draw.randrange(len(tree))
    action = draw.random()
    if action < 0.15:
        del tree[key]
    elif action < 0.2 and isinstance(tree, dict):
        tree[draw.choice(("", "x", "model", "_name", "\ud800"))] = tree.pop(key)
    elif action < 0.25 and isinstance(tree, dict):
        tree[draw.choice(list(tree))] = tree[key]
    elif action < 0.25:
        tree.append(tree[key])
    else:
        tree[key] = changed(draw, tree[key], values)
    return tree


def tensors():
    """Some that no model has."""
    sparse = torch.eye(3).to_sparse()
    return (torch.zeros(3), torch.zeros(()), torch.zeros(0), torch.ones(3, 3, dtype=torch.bool),
            torch.zeros(2).cfloat(), torch.zeros(1).expand(10**6, 10**6), torch.zeros(4).bfloat16(),
            torch.full((2, 2), math.nan), sparse,
            torch.empty(2, 2, device="meta"), torch.zeros(8).char(), torch.nn.Parameter(torch.zeros(2)))


def objects():
    """Values of a pickle that JSON does not have."""
    return (b"bytes", (1, 2), {1, 2}, 1j, collections.OrderedDict(a=1), argparse.Namespace(), {0: "number"},
            argparse.Namespace(data=3, arch=[], task=None), torch.float16, torch.Size([3]), bytearray(3))


def of_checkpoint(draw, content):
    """Of a file written by torch.save, in the zip format."""
    kind = draw.random()
    if kind < 0.15:
        return of_bytes(draw, content)
    if kind < 0.45:
        return of_archive(draw, content)
    state = torch.load(io.BytesIO(content), weights_only=True)
    return saved(with_other_leaf(draw, state, (*PLAIN, *objects(), *tensors())))


def saved(state, **named):
    file = io.BytesIO()
    torch.save(state, file, **named)
    return file.getvalue()


def of_archive(draw, content):
    """Another member, with a right CRC."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(member.filename, archive.read(member)) for member in archive.infolist()]
    at = draw.choice((0, draw.randrange(len(members))))  # the first is the pickle
    name, data = members[at]
    action = draw.random()
    if action < 0.1:
        del members[at]
    elif action < 0.15:
        members[at] = draw.choice(("../up", "archive/data/0", "/etc/x", "")), data
    elif action < 0.4 and name.endswith(".pkl"):
        members[at] = name, with_other_global(draw, data)
    else:
        members[at] = name, of_bytes(draw, data)
    return zipped(members)


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data)
    return file.getvalue()


def with_other_global(draw, pickled):
    """The pickle calls another function."""
    places = [match.span(1) for match in re.finditer(rb"c([\w.]+\n\w+\n)", pickled)] or [(0, 0)]
    begin, end = draw.choice(places)
    return pickled[:begin] + draw.choice(EVIL) + pickled[end:]


def of_old_checkpoint(draw, content):
    """Of one in the format before torch 1.6: pickles, one after the other."""
    if draw.random() < 0.5:
        return of_bytes(draw, content)
    if draw.random() < 0.5:
        return with_other_global(draw, content)
    state = torch.load(io.BytesIO(content), weights_only=True)
    return saved(with_other_leaf(draw, state, (*PLAIN, *objects())), _use_new_zipfile_serialization=False)


def of_safetensors(draw, content):
    """The bytes, or the JSON header with its right length."""
    size = struct.unpack("<Q", content[:8])[0]
    if draw.random() < 0.4:
        return of_bytes(draw, content)
    header = of_json(draw, content[8 : 8 + size])
    return struct.pack("<Q", len(header)) + header + content[8 + size :]


def of_sentencepiece(draw, content):
    """The bytes, or a field of a piece or of the specification."""
    from sentencepiece import sentencepiece_model_pb2

    if draw.random() < 0.5:
        return of_bytes(draw, content)
    proto = sentencepiece_model_pb2.ModelProto.FromString(content)
    piece = draw.choice(proto.pieces)
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    draw.choice((
        lambda: setattr(piece, "piece", draw.choice(("", "\u2581", "a b", "<mask>", "\0", "\u2028", "x" * 100_000))),
        lambda: setattr(piece, "score", draw.choice((0.0, math.nan, math.inf, -math.inf, 1e38))),
        lambda: setattr(piece, "type", draw.randint(1, 6)),
        lambda: proto.pieces.remove(piece),
        lambda: proto.pieces.append(piece),
        lambda: setattr(trainer, "model_type", draw.randint(1, 4)),
        lambda: setattr(trainer, "byte_fallback", True),
        lambda: setattr(trainer, draw.choice(("unk_id", "bos_id", "eos_id", "pad_id", "vocab_size")),
                        draw.choice((-1, 0, 5, 2**31 - 1))),
        lambda: setattr(normalizer, "precompiled_charsmap", of_bytes(draw, normalizer.precompiled_charsmap)),
        lambda: setattr(normalizer, "name", "nmt_nfkc"),
        lambda: setattr(normalizer, "escape_whitespaces", False),
    ))()
    return proto.SerializeToString()


def of_index(draw, content):
    """Of an .idx: bytes, the header, sizes and pointers."""
    if draw.random() < 0.4:
        return of_bytes(draw, content)
    data = bytearray(content)
    n = struct.unpack("<Q", data[18:26])[0]
    form, at = draw.choice((("<Q", 9), ("<B", 17), ("<Q", 18), ("<i", 26 + 4 * draw.randrange(n)),
                            ("<q", 26 + 4 * n + 8 * draw.randrange(n))))
    bits = 8 * struct.calcsize(form)
    value = draw.choice((n - 1, n + 1, -1, *INTERESTING)) % 2**bits
    struct.pack_into(form.upper(), data, at, value)
    return bytes(data)


def of_recording(draw, content, name, magic):
    """The bytes; or the masks in them, or what they are compressed to, with the digest that belongs to the result."""
    if draw.random() < 0.3:
        return of_bytes(draw, content)
    inside, how = content[len(magic) : -16], draw.random()
    if how < 0.3:
        inside = of_bytes(draw, inside)
    elif how < 0.35:
        inside = bomb()
    else:
        inside = zlib.compress(of_bytes(draw, zlib.decompress(inside)))
    return with_digest(magic + inside, name)


@functools.cache
def bomb():
    """2 GB of zeros, compressed."""
    compressor = zlib.compressobj(1)
    return b"".join(compressor.compress(bytes(2**24)) for _ in range(128)) + compressor.flush()


def of_cache(draw, content, name):
    """The bytes; or the entropies, with the digest that belongs to them."""
    return of_bytes(draw, content) if draw.random() < 0.5 else with_digest(of_bytes(draw, content[:-16]), name)


def with_digest(content, name):
    return content + hashlib.blake2b(content, digest_size=16, key=name.encode()[:64]).digest()
