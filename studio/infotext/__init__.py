"""Generation text ("infotext"): AUTOMATIC1111's format, written and read, and the pictures it travels in.

keys        the names of parameters        quote     the quoting rule
write       a resolved request -> text
read        text -> prompts and pairs      legacy    what older versions meant
fields      pairs -> request fields        loras     tags by hash
pictures    PNG, JPEG, WebP, GIF           novelai, stealth   text in other places of a picture
"""

from studio.infotext.pictures import PictureInfo, encode_picture, encode_png, read_picture
from studio.infotext.read import ParsedInfotext, parse_infotext
from studio.infotext.write import write_infotext

__all__ = [
    "ParsedInfotext",
    "PictureInfo",
    "encode_picture",
    "encode_png",
    "parse_infotext",
    "read_picture",
    "write_infotext",
]
