"""Characters that a reader takes for a Latin letter, beyond those that Unicode itself calls compatible with it."""

from __future__ import annotations

from collections.abc import Mapping

LOOKALIKES: Mapping[str, str] = {  # Cyrillic, Greek, Armenian, Latin extensions, small capitals, turned letters
    "a": "аАαΑɑᴀɐᗅΛ",
    "b": "вВβΒьЬᴃʙƄɓ",
    "c": "сСϲϹᴄƈɕↄ",
    "d": "ԁԀᴅđĐɗժ",
    "e": "еЕεΕᴇɛєЄәǝҽҿ",
    "f": "ϝƒꜰғ",
    "g": "ɡɢցǥɠԍ",
    "h": "һҺнНηΗʜħɦհ",
    "i": "іІιΙıɪɩӀӏǀїɨ",
    "j": "јЈϳᴊɉյ",
    "k": "кКκΚᴋƙқ",
    "l": "ʟłŁɭℓւ",
    "m": "мМΜᴍɱ",
    "n": "пΝɴŋɲոռ",
    "o": "оОοΟσᴏøØօɵөθ०০੦௦",
    "p": "рРρΡᴘƿ",
    "q": "ԛԚզɋ",
    "r": "гʀɍɾɹᴦ",
    "s": "ѕЅꜱʂƽ",
    "t": "тТτΤᴛŧƭ",
    "u": "υцսᴜʋʉμ",
    "v": "νѵᴠѴ",
    "w": "ԝԜωᴡաɯшѡ",
    "x": "хХχΧҳ",
    "y": "уУγΥʏүҮƴ",
    "z": "ΖᴢʐƶȤ",
    "'": "’‘ʼ`´′",
    '"': "“”„″«»",
    "-": "‐‑‒–—−",
}

CAPTIONS: Mapping[str, str] = {
    "ß": "ss",
    "æ": "ae",
    "œ": "oe",
    "Æ": "ae",
    "Œ": "oe",
    "þ": "th",
    "ð": "d",
    "。": ".",
    "।": ".",
}

CIRCLED = (0x1F130, 0x1F150, 0x1F170, 0x1F1E6)
"""Where alphabets of boxed letters begin that have no compatible form."""
