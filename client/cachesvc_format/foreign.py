"""What are these bytes, if they are not the format that a reader expected?

For messages only: a name is found from the first bytes, and nothing is decoded. Wrong guesses
change a text and nothing else.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

Buffer = bytes | bytearray | memoryview

# Enough for the doctype of a page behind comments, and for the code of an S3 error.
MAX_LOOKED_AT_BYTES = 2048
MAX_SHOWN_BYTES = 8


class Family(Enum):
    """What has to be done about such bytes."""

    PNG = "png"
    IMAGE = "image"
    TORCH = "torch"  # a pickle or a file of torch.save
    ARRAY = "array"  # a file of numpy
    SAFETENSORS = "safetensors"
    PACKED = "packed"
    POINTER = "pointer"
    ANSWER = "answer"
    CHANGED = "changed"  # the transfer changed the bytes
    OTHER = "other"


class Found(NamedTuple):
    """`name` continues a sentence that begins with `it is`."""

    name: str
    family: Family


PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ZIP_SIGNATURE = b"PK\x03\x04"
# The first stream of torch's legacy form: a pickle of its magic number.
_TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_TORCH_MAGIC_ENDS_BY = 32  # behind the protocol, and since protocol 4 the frame's length

# The first that fits is taken. A text form of a format stands before plain text.
_BY_START = (
    (PNG_SIGNATURE, "a PNG image", Family.PNG),
    (b"\x89PNG\n\x1a\n", "a PNG image that was transferred as text", Family.CHANGED),
    (b"\x89PNG\r\n\x1a\r\n", "a PNG image that was transferred as text", Family.CHANGED),
    (b"\x09PNG\r\n", "a PNG image whose bytes were cut to 7 bits", Family.CHANGED),
    (b"\xc2\x89PNG", "a PNG image that was encoded as UTF-8 text", Family.CHANGED),
    (b"\xef\xbf\xbdPNG", "a PNG image that was read as UTF-8 text", Family.CHANGED),
    (b"\xef\xbf\xbd", "binary data that was read as UTF-8 text", Family.CHANGED),
    (b"\xc2\x80\x02", "a pickle that was encoded as UTF-8 text", Family.CHANGED),
    (b"\xc2\x80\x04", "a pickle that was encoded as UTF-8 text", Family.CHANGED),
    (b"\xff\xd8\xff", "a JPEG image", Family.IMAGE),
    (b"GIF87a", "a GIF image", Family.IMAGE),
    (b"GIF89a", "a GIF image", Family.IMAGE),
    (b"II*\0", "a TIFF image", Family.IMAGE),
    (b"MM\0*", "a TIFF image", Family.IMAGE),
    (b"II+\0", "a TIFF image", Family.IMAGE),
    (b"MM\0+", "a TIFF image", Family.IMAGE),
    (b"\x8aMNG\r\n\x1a\n", "an MNG animation", Family.IMAGE),
    (b"\x8bJNG\r\n\x1a\n", "a JNG image", Family.IMAGE),
    (b"\xff\x0a", "a JPEG XL image", Family.IMAGE),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image", Family.IMAGE),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image", Family.IMAGE),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image", Family.IMAGE),
    (b"8BPS", "a Photoshop document", Family.IMAGE),
    (b"v/1\x01", "an OpenEXR image", Family.IMAGE),
    (b"#?RADIANCE", "a Radiance HDR image", Family.IMAGE),
    (b"qoif", "a QOI image", Family.IMAGE),
    (b"farbfeld", "a farbfeld image", Family.IMAGE),
    (b"DDS ", "a DDS image", Family.IMAGE),
    (b"\xabKTX ", "a KTX image", Family.IMAGE),
    (b"icns", "an ICNS image", Family.IMAGE),
    (b"\0\0\x01\0", "an ICO image", Family.IMAGE),
    (b"gimp xcf", "a GIMP image", Family.IMAGE),
    (b"\x93NUMPY", "a numpy array (.npy)", Family.ARRAY),
    (b"\x1f\x8b", "gzip data", Family.PACKED),
    (b"\x28\xb5\x2f\xfd", "zstd data", Family.PACKED),
    (b"BZh", "bzip2 data", Family.PACKED),
    (b"\xfd7zXZ\0", "xz data", Family.PACKED),
    (b"\x04\x22\x4d\x18", "LZ4 data", Family.PACKED),
    (b"\xff\x06\0\0sNaPpY", "Snappy data", Family.PACKED),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", Family.PACKED),
    (b"Rar!\x1a\x07", "a RAR archive", Family.PACKED),
    (b"PK\x05\x06", "an empty zip archive", Family.PACKED),
    (b"\x78\x01", "zlib data", Family.PACKED),
    (b"\x78\x5e", "zlib data", Family.PACKED),
    (b"\x78\x9c", "zlib data", Family.PACKED),
    (b"\x78\xda", "zlib data", Family.PACKED),
    (b"Salted__", "a file that OpenSSL encrypted", Family.PACKED),
    (b"age-encryption.org/", "a file that age encrypted", Family.PACKED),
    (b"-----BEGIN PGP", "a PGP message", Family.PACKED),
    (b"iVBORw0KGgo", "base64 text of a PNG image", Family.PACKED),
    (b"/9j/", "base64 text of a JPEG image", Family.PACKED),
    (b"gASV", "base64 text of a pickle", Family.PACKED),
    (b"gAKK", "base64 text of a torch.save file", Family.PACKED),
    (b"UEsDB", "base64 text of a zip archive", Family.PACKED),
    (b"data:", "a data URL", Family.PACKED),
    (b"b'\\x", "the text form of Python bytes", Family.PACKED),
    (b"b'GIF", "the text form of Python bytes", Family.PACKED),
    (b"version https://git-lfs.github.com/", "a Git LFS pointer", Family.POINTER),
    (b"/annex/objects/", "a git-annex pointer", Family.POINTER),
    (b"../.git/annex/", "a git-annex pointer", Family.POINTER),
    (b"outs:\n- ", "a DVC pointer", Family.POINTER),
    (b"\0\x05\x16\x07", "the AppleDouble file that macOS writes beside a file", Family.POINTER),
    (b"HTTP/1.", "an HTTP answer with its headers", Family.ANSWER),
    (b"%PDF-", "a PDF document", Family.OTHER),
    (b"%!PS", "a PostScript document", Family.OTHER),
    (b"PAR1", "a Parquet file", Family.OTHER),
    (b"ARROW1", "an Arrow file", Family.OTHER),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", Family.OTHER),
    (b"GGUF", "a GGUF file", Family.OTHER),
    (b"MATLAB 5.0", "a MATLAB file", Family.OTHER),
    (b"SQLite format 3\0", "an SQLite database", Family.OTHER),
    (b"SIMPLE  =", "a FITS file", Family.OTHER),
    (b"\x7fELF", "a program", Family.OTHER),
    (b"OggS", "an Ogg file", Family.OTHER),
    (b"ID3", "an MP3 file", Family.OTHER),
    (b"\x1a\x45\xdf\xa3", "a Matroska or WebM video", Family.OTHER),
)
# By the brand behind `ftyp`, at byte 8.
_BRANDS = {
    b"avif": "an AVIF image",
    b"avis": "an AVIF animation",
    b"heic": "a HEIC image",
    b"heix": "a HEIC image",
    b"heim": "a HEIC image",
    b"heis": "a HEIC image",
    b"hevc": "a HEIC animation",
    b"mif1": "a HEIF image",
    b"msf1": "a HEIF animation",
    b"crx ": "a Canon raw image",
}
_RIFF = {
    b"WEBP": Found("a WebP image", Family.IMAGE),
    b"WAVE": Found("a WAV file", Family.OTHER),
    b"AVI ": Found("an AVI video", Family.OTHER),
}
_UNICODE_STARTS = (
    (b"\xff\xfe\0\0", "utf-32-le"),
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
    (b"\xef\xbb\xbf", "utf-8"),
)
_UNICODE_NAMES = {"utf-8": "UTF-8 text with a byte order mark"}
_CONTROL = re.compile(rb"[\0-\x08\x0e-\x1a\x1c-\x1f\x7f]")
# What some stores keep of a streamed upload that they did not decode.
_AWS_CHUNKED = re.compile(rb"[0-9a-f]{1,8}(;chunk-signature=[0-9a-f]{64})?\r\n")
_S3_CODE = re.compile(rb"<Code>([A-Za-z0-9.]{1,64})</Code>")
_TAG = re.compile(rb"\s*(?:<\?xml[^>]*>\s*|<!--.*?-->\s*)*<(!?[A-Za-z][A-Za-z0-9:]*)", re.DOTALL)
_BASE64 = re.compile(rb"(?=[^a-z]*[a-z])(?=[^A-Z]*[A-Z])[A-Za-z0-9+/\r\n]{64,}={0,2}\s*")
_PNM = re.compile(rb"P[1-7]\s[\s#0-9W]")
# A pickle of protocol 0 or 1 that begins with a global, as that of every object does.
_PROTO_0 = re.compile(rb"\(?c[A-Za-z_][\w.]*\n[A-Za-z_]")


def name_of(data: Buffer) -> Found | None:
    """Return what `data` seems to be, or None for bytes that nothing here knows."""
    head = bytes(memoryview(data)[:MAX_LOOKED_AT_BYTES])
    return next((found for look in _LOOKS if (found := look(head)) is not None), None)


def begins_with_torch_magic(head: bytes) -> bool:
    """Return whether these are the first bytes of torch's legacy form."""
    return head[:1] == b"\x80" and _TORCH_MAGIC in head[:_TORCH_MAGIC_ENDS_BY]


def begins_with(data: Buffer) -> str:
    """Return the first bytes for a message about unknown data: `89 50 4e 47`."""
    return bytes(memoryview(data)[:MAX_SHOWN_BYTES]).hex(" ")


def _nothing(head: bytes) -> Found | None:
    if not head:
        return Found("empty: it has no bytes", Family.CHANGED)
    if not head.strip(b"\0"):
        return Found("a file that begins with zero bytes only", Family.CHANGED)
    return None


def _by_start(head: bytes) -> Found | None:
    for start, name, family in _BY_START:
        if head.startswith(start):
            return Found(name, family)
    return None


def _container(head: bytes) -> Found | None:
    if head[4:8] == b"ftyp":
        brand = _BRANDS.get(head[8:12])
        return Found(brand, Family.IMAGE) if brand else Found("an MP4 video", Family.OTHER)
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], Found("a RIFF file", Family.OTHER))
    if head[257:262] == b"ustar":
        return Found("a tar archive", Family.PACKED)
    if head[128:132] == b"DICM":
        return Found("a DICOM image", Family.IMAGE)
    # A BMP's second size is that of its own header.
    if head[:2] == b"BM" and len(head) >= 18 and head[14] in (12, 40, 56, 64, 108, 124):
        return Found("a BMP image", Family.IMAGE)
    return Found("a Netpbm image", Family.IMAGE) if _PNM.match(head) else None


def _zip(head: bytes) -> Found | None:
    if not head.startswith(ZIP_SIGNATURE):
        return None
    name_end = 30 + int.from_bytes(head[26:28], "little")
    if name_end > len(head):
        return Found("the beginning of a zip archive", Family.CHANGED)
    name = head[30:name_end]
    if name.endswith((b"/data.pkl", b"/.format_version", b"/byteorder")):
        return Found("a file of torch.save", Family.TORCH)
    if b"/code/" in name or name.endswith((b"/constants.pkl", b"/version")):
        return Found("a TorchScript or torch.package archive", Family.OTHER)
    if name.endswith(b".npy"):
        return Found("a numpy archive (.npz)", Family.ARRAY)
    return Found("a zip archive", Family.PACKED)


def _pickle(head: bytes) -> Found | None:
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        if begins_with_torch_magic(head):
            return Found("a file of torch.save", Family.TORCH)
        return Found("a pickle", Family.TORCH)
    return Found("a pickle", Family.TORCH) if _PROTO_0.match(head) else None


def _safetensors(head: bytes) -> Found | None:
    size_bytes = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 2 <= size_bytes < 2**31:
        return Found("a safetensors file", Family.SAFETENSORS)
    return None


def _chunked(head: bytes) -> Found | None:
    if _AWS_CHUNKED.match(head):
        return Found("an upload whose aws-chunked encoding the store kept", Family.CHANGED)
    if head.startswith(b"--") and b"\r\nContent-Disposition: form-data" in head:
        return Found("an HTML form's upload with its headers", Family.CHANGED)
    return None


def _text(head: bytes) -> Found | None:
    for start, encoding in _UNICODE_STARTS:
        if head.startswith(start):
            rest = head[len(start) :].decode(encoding, "ignore").encode("utf-8", "ignore")
            found = _plain_text(rest)
            name = _UNICODE_NAMES.get(encoding, f"{encoding[:6].upper()} text")
            is_page = found is not None and found.family is not Family.OTHER
            return found if is_page else Found(name, Family.OTHER)
    return _plain_text(head)


def _plain_text(head: bytes) -> Found | None:
    tag = _TAG.match(head)
    if tag is not None:
        return _markup(tag[1].lower(), head)
    begin = head.lstrip()[:1]
    if not begin or _CONTROL.search(head) or not _is_utf8(head):
        return None
    if begin in (b"{", b"["):
        return Found("JSON text", Family.ANSWER)
    if _BASE64.fullmatch(head):
        return Found("base64 text", Family.PACKED)
    return Found("text", Family.OTHER)


def _is_utf8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return True


def _markup(tag: bytes, head: bytes) -> Found:
    if tag in (b"!doctype", b"html", b"head", b"body"):
        return Found("an HTML page", Family.ANSWER)
    if tag == b"svg":
        return Found("an SVG drawing", Family.IMAGE)
    if tag == b"error":
        code = _S3_CODE.search(head)
        which = f" ({code[1].decode()})" if code else ""
        return Found(f"an XML error page of S3{which}", Family.ANSWER)
    return Found("an XML page", Family.ANSWER)


_LOOKS: tuple[Callable[[bytes], Found | None], ...] = (
    _nothing,
    # Its first bytes are a length, which may look like anything.
    _safetensors,
    _by_start,
    _container,
    _zip,
    _pickle,
    _chunked,
    _text,
)
