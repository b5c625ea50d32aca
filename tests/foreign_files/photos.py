"""Ten photos that packages ship, each with the EXIF, XMP and profile of a camera.

Where a photo has EXIF of its own, its tags stay; the missing ones are added.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import MutableMapping
from enum import IntEnum
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, ImageCms

from tests.foreign_files import sources

# By the package: the ends of their paths.
PHOTOS = {
    "pillow": ("Tests/images/flower.jpg", "Tests/images/xmp_test.jpg", "Tests/images/iptc.jpg"),
    "scikit-image": (
        "skimage/data/astronaut.png",
        "skimage/data/hubble_deep_field.jpg",
        "skimage/data/retina.jpg",
        "skimage/data/rocket.jpg",
    ),
    "scikit-learn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
    "matplotlib": ("sample_data/grace_hopper.jpg",),
}
COUNT = sum(map(len, PHOTOS.values()))
_LONG_SIDE = 640
_ENDINGS = (".jpg", ".png")

_IMAGE_TAGS = {
    "ImageDescription": "a photo, with a description of some length " * 8,
    "Make": "A maker of cameras",
    "Model": "A camera 5000",
    "Orientation": 6,
    "XResolution": 300.0,
    "YResolution": 300.0,
    "ResolutionUnit": 2,
    "Software": "Firmware 1.23",
    "DateTime": "2026:01:02 03:04:05",
    "Artist": "A photographer",
    "YCbCrPositioning": 1,
    "Copyright": "Nobody",
    "Rating": 5,
    "XPTitle": "A title\0".encode("utf-16-le"),
    "XPKeywords": "a, b\0".encode("utf-16-le"),
}
_CAMERA_TAGS = {
    "ExposureTime": 0.004,
    "FNumber": 2.8,
    "ExposureProgram": 2,
    "ISOSpeedRatings": 200,
    "SensitivityType": 2,
    "ExifVersion": b"0232",
    "DateTimeOriginal": "2026:01:02 03:04:05",
    "DateTimeDigitized": "2026:01:02 03:04:05",
    "OffsetTime": "+09:00",
    "OffsetTimeOriginal": "+09:00",
    "ComponentsConfiguration": b"\1\2\3\0",
    "CompressedBitsPerPixel": 4.0,
    "ShutterSpeedValue": 8.0,
    "ApertureValue": 3.0,
    "BrightnessValue": 5.5,
    "ExposureBiasValue": 0.0,
    "MaxApertureValue": 3.0,
    "SubjectDistance": 2.5,
    "MeteringMode": 5,
    "LightSource": 0,
    "Flash": 16,
    "FocalLength": 50.0,
    "MakerNote": bytes(range(256)) * 24,
    "UserComment": b"ASCII\0\0\0a comment",
    "SubsecTime": "12",
    "SubsecTimeOriginal": "12",
    "SubsecTimeDigitized": "12",
    "FlashPixVersion": b"0100",
    "ColorSpace": 1,
    "ExifImageWidth": 640,
    "ExifImageHeight": 480,
    "SensingMethod": 2,
    "FileSource": b"\3",
    "SceneType": b"\1",
    "CustomRendered": 0,
    "ExposureMode": 0,
    "WhiteBalance": 0,
    "DigitalZoomRatio": 1.0,
    "FocalLengthIn35mmFilm": 75,
    "SceneCaptureType": 0,
    "GainControl": 1,
    "Contrast": 0,
    "Saturation": 0,
    "Sharpness": 0,
    "SubjectDistanceRange": 2,
    "ImageUniqueID": "0123456789abcdef0123456789abcdef",
    "CameraOwnerName": "An owner",
    "BodySerialNumber": "123456",
    "LensSpecification": (24.0, 70.0, 2.8, 2.8),
    "LensModel": "24-70mm f/2.8",
    "LensSerialNumber": "654321",
}
_PLACE_TAGS = {
    "GPSVersionID": b"\2\3\0\0",
    "GPSLatitudeRef": "N",
    "GPSLatitude": (37.0, 33.0, 59.5),
    "GPSLongitudeRef": "E",
    "GPSLongitude": (126.0, 58.0, 40.8),
    "GPSAltitudeRef": b"\0",
    "GPSAltitude": 38.0,
    "GPSTimeStamp": (3.0, 4.0, 5.0),
    "GPSImgDirectionRef": "T",
    "GPSImgDirection": 120.0,
    "GPSDateStamp": "2026:01:02",
}
_XMP = (
    '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    'rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:format>image/jpeg</dc:format>'
    f'</rdf:Description></rdf:RDF></x:xmpmeta>{" " * 2048}<?xpacket end="w"?>'
)


def write(folder: Path, into: Path) -> list[Path]:
    """Write the photos as JPEGs into `into`, and return their paths."""
    into.mkdir(parents=True, exist_ok=True)
    written = []
    for found in sources.files(folder, *_ENDINGS):
        if found.path.endswith(PHOTOS.get(found.package, ())) and found.package in PHOTOS:
            name = f"{found.package}-{Path(found.path).stem}.jpg"
            (into / name).write_bytes(_with_metadata(found.data))
            written.append(into / name)
    return written


def _with_metadata(data: bytes) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a photo whose own EXIF is damaged
        with Image.open(io.BytesIO(data)) as image:
            exif = image.getexif()
            photo = image.convert("RGB")
        photo.thumbnail((_LONG_SIDE, _LONG_SIDE))
        _add(exif, ExifTags.Base, _IMAGE_TAGS)
        _add(exif.get_ifd(ExifTags.IFD.Exif), ExifTags.Base, _CAMERA_TAGS)
        _add(exif.get_ifd(ExifTags.IFD.GPSInfo), ExifTags.GPS, _PLACE_TAGS)
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        out = io.BytesIO()
        photo.save(out, "JPEG", quality=92, exif=exif, icc_profile=profile, xmp=_XMP.encode())
        return out.getvalue()


def _add(tags: MutableMapping[int, Any], names: type[IntEnum], values: dict[str, Any]) -> None:
    for name, value in values.items():
        tag = int(names[name])
        if tag not in tags:
            tags[tag] = value
