"""Generation text ("infotext"): AUTOMATIC1111's format, written and read, and the pictures it travels in.

keys        the names of parameters        quote     the quoting rule
write       a resolved request -> text
read        text -> prompts and pairs      legacy    what older versions meant
fields      pairs -> request fields        unused    what nothing here acts on
dialects    models named outside prompts   loras     tags by hash            embeddings  words by hash
pictures    reading PNG, JPEG, WebP, AVIF, GIF       opening  any picture safely      encode, exif   writing them
comfyui, fooocus, novelai (code_names)     other programs' metadata as A1111's text
stealth     text hidden in pixels
"""

from studio.infotext.encode import DEFAULT_QUALITY, EncodedPicture, encode_image, encode_png, encode_saved
from studio.infotext.opening import guarded, open_picture
from studio.infotext.pictures import PictureInfo, read_picture
from studio.infotext.plot import with_plot
from studio.infotext.read import ParsedInfotext, parse_infotext
from studio.infotext.write import write_infotext

__all__ = [
    "DEFAULT_QUALITY",
    "EncodedPicture",
    "ParsedInfotext",
    "PictureInfo",
    "encode_image",
    "encode_png",
    "encode_saved",
    "guarded",
    "open_picture",
    "parse_infotext",
    "read_picture",
    "with_plot",
    "write_infotext",
]
