"""Writes the committed seeds of every parser: `python -m tests.fuzz.make_corpus`.

The seeds are good examples, so that a fuzzer starts behind the first checks, and the attacks of
`tests/codec/test_pickle_attacks.py` and similar ones. Their bytes are the same each time, for one
version of torch and Pillow. Inputs that a fuzzer has found stay in the folder beside them.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from PIL import Image, PngImagePlugin

from cachesvc.codec.blob import build_blob
from cachesvc.core.kinds import TEXT
from cachesvc_format.blob import Tensor
from cachesvc_format.control_page import HEADER, State
from cachesvc_format.foreign import MAX_LOOKED_AT_BYTES
from cachesvc_proto.v1 import cache_pb2 as pb
from tests.codec import test_foreign as foreign
from tests.codec import test_pickle_attacks as attacks
from tests.fuzz.asked import MESSAGES
from tests.fuzz.parser import CORPUS

# Larger attacks are bombs of length alone; test_pickle_attacks.py has them.
MAX_SEED_BYTES = 16 * 1024
# Relative: an attack creates it in the process's working directory.
CANARY = Path("cachesvc-was-here")
CODE = "code - "

Seeds = dict[str, bytes]


def _torch_file(tensor: torch.Tensor, *, as_zip: bool) -> bytes:
    file = io.BytesIO()
    torch.save(tensor, file, _use_new_zipfile_serialization=as_zip)
    return file.getvalue()


def _pickles() -> dict[str, Seeds]:
    tensor = torch.arange(6, dtype=torch.float16).reshape(2, 3)
    good = {f"good protocol {n}": pickle.dumps(tensor, protocol=n) for n in range(6)}
    good["good parameter"] = pickle.dumps(torch.nn.Parameter(tensor))
    code = {CODE + name: make(CANARY) for name, make in attacks.CODE_ATTACKS.items()}
    stream = b"\x80\x02" + attacks.ZIP_TENSOR + b"."
    return {
        "pickle": good | code | attacks.STREAMS,
        "torch_legacy": {
            "good": _torch_file(tensor, as_zip=False),
            "good by hand": attacks.LEGACY_FILE,
            "code - eval": code[CODE + "eval in a legacy file"],
        },
        "torch_zip": {
            "good": _torch_file(tensor, as_zip=True),
            "good by hand": attacks.zipped(attacks.ZIP_TENSOR),
            "code - eval": code[CODE + "eval in a zip"],
            **attacks.ARCHIVES,
        },
        "torch_zip_stream": {
            "good": stream,
            "code - os.system": attacks.CODE_ATTACKS["os.system"](CANARY),
        },
    }


def _foreign() -> Seeds:
    # What names data looks at no more of it.
    return {name.strip(): data[:MAX_LOOKED_AT_BYTES] for name, data in foreign.EVERYTHING.items()}


def _image(mode: str) -> Image.Image:
    rgba = np.arange(7 * 5 * 4, dtype=np.uint32).reshape(5, 7, 4) * 53 % 256
    return Image.fromarray(rgba.astype(np.uint8)).convert(mode)


def _png(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format="PNG", **options)
    return out.getvalue()


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _header(width: int, height: int, depth: int = 8, colour: int = 0, interlace: int = 0) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + _chunk(
        b"IHDR", struct.pack(">2I5B", width, height, depth, colour, 0, 0, interlace)
    )


_END = _chunk(b"IEND", b"")


def _behind_the_header(chunks: bytes) -> bytes:
    good = _png(_image("L"))
    return good[:33] + chunks + good[33:]


def _images() -> dict[str, Seeds]:
    good = {f"good {mode}": _png(_image(mode)) for mode in ("L", "LA", "RGB", "RGBA", "P", "1")}
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 100, zip=True)
    info.add_itxt("Title", "y" * 100, "en", zip=True)
    good["good with texts"] = _png(_image("RGB"), pnginfo=info, icc_profile=bytes(300))
    good["good palette with transparency"] = _png(_image("RGB").quantize(16), transparency=3)
    good["16 bit grey"] = _png(Image.fromarray(np.arange(35, dtype=np.uint16).reshape(5, 7)))
    rows = zlib.compress(bytes(8 * 5))
    passes = bytes(35 + 11)  # 7 x 5 pixels, in 11 rows of seven passes
    good["good interlaced"] = (
        _header(7, 5, interlace=1) + _chunk(b"IDAT", zlib.compress(passes)) + _END
    )
    good["good animation of one frame"] = _behind_the_header(
        _chunk(b"acTL", struct.pack(">2I", 1, 0))
        + _chunk(b"fcTL", struct.pack(">5I2H2B", 0, 7, 5, 0, 0, 1, 1, 0, 0))
    )
    # The most that 16 KiB of zeros, inflated a thousandfold, can be made to cost.
    flat = zlib.compress(bytes((3 * 2_300 + 1) * 2_300), 9)
    bombs = {
        "bomb 4 gigapixels": _header(65_535, 65_535) + _chunk(b"IDAT", rows) + _END,
        "bomb just above the limit": _header(65_536, 513) + _chunk(b"IDAT", rows) + _END,
        "bomb of the largest size without its rows": _header(8192, 4096, 8, 6)
        + _chunk(b"IDAT", rows)
        + _END,
        "bomb of zeros within the limit": _header(2_300, 2_300, 8, 2)
        + _chunk(b"IDAT", flat)
        + _END,
        "bomb of a text": _behind_the_header(
            _chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(8 << 20)))
        ),
        "bomb of an international text": _behind_the_header(
            _chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(8 << 20)))
        ),
        "bomb of a profile": _behind_the_header(
            _chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(8 << 20)))
        ),
        "bomb of 1000 empty chunks": _behind_the_header(_chunk(b"IDAT", b"") * 1000),
        "bomb of a second header": _header(1, 1)
        + _chunk(b"IHDR", struct.pack(">2I5B", 8192, 8192, 8, 6, 0, 0, 0))
        + _chunk(b"IDAT", rows)
        + _END,
        "bomb of 33 texts": _behind_the_header(_chunk(b"tEXt", b"k\0v") * 33),
    }
    others = {
        "nothing": b"",
        "no pixels": _header(0, 5) + _END,
        "no header": b"\x89PNG\r\n\x1a\n" + _END,
        "a width of 2**31": _header(2**31, 1) + _chunk(b"IDAT", rows) + _END,
        "interlaced": _header(7, 5, interlace=1) + _chunk(b"IDAT", rows) + _END,
        "a palette without one": _header(7, 5, colour=3) + _chunk(b"IDAT", rows) + _END,
        "a depth of 3": _header(7, 5, depth=3) + _chunk(b"IDAT", rows) + _END,
        "a colour of 5": _header(7, 5, colour=5) + _chunk(b"IDAT", rows) + _END,
        "pixels that stop": _header(7, 5) + _chunk(b"IDAT", rows[:6]) + _END,
        "a row too few": _header(7, 5) + _chunk(b"IDAT", zlib.compress(bytes(8 * 4))) + _END,
        "a byte too few, interlaced": _header(7, 5, interlace=1)
        + _chunk(b"IDAT", zlib.compress(passes[:-1]))
        + _END,
        "an animation": _png(_image("L"), save_all=True, append_images=[_image("L").rotate(180)]),
        "a frame that is not announced": _header(7, 5)
        + _chunk(b"fcTL", struct.pack(">5I2H2B", 0, 3, 2, 1, 1, 1, 1, 0, 0))
        + _chunk(b"IDAT", rows)
        + _END,
        "a chunk of 4 GiB": _header(7, 5) + b"\xff\xff\xff\xffIDAT" + rows,
    }
    for suffix in ("JPEG", "GIF", "BMP", "TIFF"):
        out = io.BytesIO()
        _image("L").save(out, format=suffix)
        others[f"in truth {suffix}"] = out.getvalue()
    return {"png": good | bombs | others, "png_chunks": good | bombs}


def _blob(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 8)
    return struct.pack("<Q", len(text)) + text + data


def _field(dtype: object, shape: object, offsets: object) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def _blobs() -> dict[str, Seeds]:
    image = Tensor("U8", (2, 3, 3), bytes(18), "RGB")
    good = {
        "good": build_blob({"a": Tensor("F16", (2, 3), bytes(12)), "b": image}),
        "good text": build_blob(
            {field.name: Tensor("F16", (1, 3), bytes(6)) for field in TEXT.fields}
        ),
        "good and empty": build_blob({"a": Tensor("F16", (0, 3), b"")}),
        "good without fields": _blob({}),
    }
    f16 = _field("F16", [2], [0, 4])
    bad = {
        "nothing": b"",
        "a header of 2**64": b"\xff" * 8,
        "a header beyond the end": struct.pack("<Q", 9) + b"{}",
        "a list": _blob([f16], bytes(4)),
        "a key twice": _blob(b'{"a":1,"a":2}'),
        "a hole": _blob({"a": _field("F16", [2], [2, 6])}, bytes(6)),
        "an overlap": _blob({"a": f16, "b": f16}, bytes(4)),
        "bytes behind it": _blob({"a": f16}, bytes(5)),
        "a negative offset": _blob({"a": _field("F16", [2], [-4, 0])}, bytes(4)),
        "offsets the wrong way": _blob({"a": _field("F16", [-2], [4, 0])}, bytes(4)),
        "a shape of 2**64": _blob({"a": _field("F16", [2**64], [0, 4])}, bytes(4)),
        "an empty shape of 2**40": _blob({"a": _field("F16", [0, 2**40, 2**40], [0, 0])}),
        "a bool as a size": _blob({"a": _field("U8", [True], [0, 1])}, b"\0"),
        "a float as a size": _blob({"a": _field("U8", [1.0], [0, 1])}, b"\0"),
        "not a number": _blob(b'{"a":NaN}'),
        "an unknown dtype": _blob({"a": _field("F8_E5M2", [4], [0, 4])}, bytes(4)),
        "a dtype that is a list": _blob({"a": _field([], [4], [0, 4])}, bytes(4)),
        "metadata that is a number": _blob({"__metadata__": {"a": 1}}),
        "another format": _blob({"__metadata__": {"cachesvc.format": "2"}}),
        "an unknown mode": _blob({"__metadata__": {"a.mode": "CMYK"}, "a": f16}, bytes(4)),
        "nesting": _blob(b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}"),
        "a number of 5000 digits": _blob(b'{"a":' + b"9" * 5000 + b"}"),
        "a surrogate": _blob(b'{"\\ud800":1}'),
        "not UTF-8": _blob(b'{"\xff":1}'),
        "unaligned": _blob(
            {"b": _field("U8", [1], [0, 1]), "a": _field("F16", [1], [1, 3])}, bytes(3)
        ),
    }
    return {"blob": good | bad, "client_blob": good | bad}


IDS = (
    "user1", "a", "A.b_c-9", "x" * 128, "x" * 129, "", ".", "..", "...", "-rf", "_a", "a/b",
    "../a", "/etc/passwd", "a\0b", "a\nb", "a b", "%2e%2e", "%2F", "a%00", "\u00e9", "e\u0301",
    "\uff0e\uff0e", "\u202ea", "\u0130", "\U0001f600", "x" * 4096, "con", "~root", "$(id)",
    "`id`", "a;b", "{owner}", "a\\b", "\u0661", "\ufeffa", "a\u200bb",
)  # fmt: skip


def _asked() -> dict[str, Seeds]:
    paths = [
        "/",
        "/cache/all",
        "/cache/human/user1",
        "/cache/human/..%2fall",
        "//x",
        "x",
        "*",
        "/a/",
    ]
    paths += [f"/cache/human/{value}" for value in IDS] + ["/metrics?a=../..", "/%", "/a?b?c"]
    bodies = [
        '{"user_id": "user1", "clothing_ids": ["c1", "c2"], "categories": ["upper_body"]}',
        '{"garments": [{"clothing_id": "c1", "owner_id": "o1"}]}',
        '{"user_id": "../..", "categories": []}',
        '{"user_id": 7}',
        '{"categories": ["hats"], "user_id": "u"}',
        '{"user_id": "\\ud800"}',
        '{"user_id": "a", "user_id": "b"}',
        '{"user_id": null, "x": 1}',
        '{"clothing_ids": ' + "[" * 300 + "]" * 300 + "}",
        "[]", "NaN", "", "{", '"', "9" * 5000,
    ]  # fmt: skip
    tokens = ["Bearer abc", "bearer  x ", "Basic YTpi", "", "Bearer", "Bearer a\0Bearer b"]
    tokens += [
        "Bearer " + "x" * 600,
        "Bearer spiffe://a/b",
        "Bearer ::1",
        "Bearer a@b",
        "Bearer \u00e9",
    ]
    return {
        "id": {f"{number:02}": value.encode() for number, value in enumerate(IDS)},
        "path": {f"{number:02}": value.encode() for number, value in enumerate(paths)},
        "warmup_body": {f"{number:02}": body.encode() for number, body in enumerate(bodies)},
        "authorization": {f"{number:02}": token.encode() for number, token in enumerate(tokens)},
        "message": _messages(),
    }


def _messages() -> Seeds:
    upper = pb.HUMAN_CATEGORY_UPPER_BODY
    key = pb.EntryKey(namespace="garment", id="c1")
    early, late = Timestamp(seconds=-(2**62), nanos=-1), Timestamp(seconds=1_790_000_000)
    requests = [
        pb.GetHumanRequest(user_id="user1", category=upper, origin_after=late, kind_version="1"),
        pb.GetHumanRequest(user_id="..", category=upper),
        pb.GetHumanRequest(user_id="user1", category=99, origin_after=early),
        pb.GetGarmentRequest(clothing_id="c1", owner_id="o1"),
        pb.GetGarmentRequest(clothing_id="c1", owner_id="a/b", origin_after=early),
        pb.GetTryOnRequest(user_id="user1", category=upper, clothing_id="c1", owner_id="o1"),
        pb.GetRequest(key=key, owner_id="o1"),
        pb.GetRequest(key=pb.EntryKey(namespace="..", id="c1")),
        pb.PutHeader(key=key, owner_id="o1", as_of=late, ttl=Duration(seconds=60), persist=True),
        pb.PutHeader(key=key, as_of=early, ttl=Duration(seconds=-(2**62))),
        pb.InvalidateRequest(user_id="user1", changed_at=late, erase=True),
        pb.InvalidateRequest(clothing_id="-", changed_at=early),
        pb.InvalidateRequest(owner_id="o1"),
        pb.InvalidateRequest(key=key),
        pb.InvalidateRequest(namespace="garment"),
        pb.InvalidateRequest(everything=True),
        pb.InvalidateRequest(),
        pb.WarmRequest(
            user_id="user1",
            categories=[upper],
            garments=[pb.WarmGarment(clothing_id="c1", owner_id="o1")],
        ),
        pb.WarmRequest(garments=[pb.WarmGarment(clothing_id="c" * 4096)]),
        pb.InspectRequest(key=key),
    ]
    numbers = {message_type: number for number, (message_type, _) in enumerate(MESSAGES)}
    return {
        f"{at:02} {type(request).__name__}": bytes((numbers[type(request)],))
        + request.SerializeToString(deterministic=True)
        for at, request in enumerate(requests)
    } | {"an empty message": b"\0", "nothing": b"", "not a message": b"\1\xff\xff\xff"}


def _placed() -> dict[str, Seeds]:
    example = (Path(__file__).parents[2] / "deploy/cachesvc.toml.example").read_bytes()
    folder = b'[origin]\nkind = "directory"\npath = "/nowhere"\n'
    kind = (
        b"[kinds.hat]\nmax_entries = 3\nsubject = 'clothing'\nttl_hours = 1\n"
        b"namespaces = [{name = 'hat', part = 'p'}]\n"
        b"fields = [{name = 'img', encoding = 'png', template = 'u/{owner}/{id}.png'}]\n"
    )
    settings = {
        "good": folder,
        "good kind": folder + kind,
        "the example": example[:4000],
        "a template that reaches inside": folder + kind.replace(b"{id}", b"{id.__class__}"),
        "a template with a path": folder + kind.replace(b"u/", b"../../"),
        "a kind named ..": folder + kind.replace(b"'hat'", b"'..'"),
        "a watermark that is not a number": folder + b"[l2]\nhigh_watermark = nan\n",
        "hours without end": b"ttl_hours = inf\n" + folder,
        "an unknown setting": folder + b"[l3]\nx = 1\n",
        "nesting": b"kinds = " + b"[" * 2000 + b"]" * 2000,
        "an address": folder + b"[grpc]\nlisten = '[::1]:99999'\n",
        "digits that are not ASCII": folder + "[http]\nlisten = 'a:\u00b2'\n".encode(),
        "not UTF-8": b"ttl_hours = '\xff'",
        "not TOML": b"[[[",
        "a NUL in a path": folder + b'[access]\nfile = "a\\u0000b"\n',
    }
    token = b"[[tokens]]\nname = 'a'\nsha256 = '" + b"0" * 64 + b"'\nroles = ['worker']\n"
    access = {
        "good": token + b"[certificates]\n'spiffe://x/y' = ['backend']\n",
        "a time": token.replace(b"roles", b"expires = 2030-01-01T00:00:00Z\nroles"),
        "a time without a zone": token.replace(b"roles", b"expires = 2030-01-01\nroles"),
        "no roles": token.replace(b"'worker'", b""),
        "a role that is none": token.replace(b"worker", b"root"),
        "nesting": b"tokens = " + b"[" * 900 + b"]" * 900,
    }
    page = HEADER.pack(b"cachesvc", 1, State.SERVING, bytes(range(16)))
    pages = {
        "good": b"\xff" + page + struct.pack("<Q", 1),
        "of the future": b"\xff" + page + b"\xff" * 8,
        "closed": b"\xff" + HEADER.pack(b"cachesvc", 1, State.CLOSED, bytes(16)),
        "another version": b"\xff" + HEADER.pack(b"cachesvc", 2, 1, bytes(16)),
        "another magic": b"\xff" + HEADER.pack(b"cachesvx", 1, 1, bytes(16)),
        "short": b"\0" + page,
        "empty": b"\0",
        "long": b"\0" + page.ljust(4097, b"\0"),
    }
    return {"settings": settings, "access_file": access, "control_page": pages}


def write(parsers: Mapping[str, Seeds], folder: Path) -> int:
    """Write every seed that is not too large; return their number."""
    count = 0
    for parser, seeds in parsers.items():
        (folder / parser).mkdir(parents=True, exist_ok=True)
        for name, data in seeds.items():
            if len(data) <= MAX_SEED_BYTES:
                (folder / parser / re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")).write_bytes(
                    data
                )
                count += 1
    return count


def seeds() -> dict[str, Seeds]:
    return {"foreign": _foreign(), **_pickles(), **_images(), **_blobs(), **_asked(), **_placed()}


if __name__ == "__main__":
    print(write(seeds(), CORPUS), "seeds in", CORPUS)
