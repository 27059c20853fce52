"""espeak-ng out of the wheel `espeakng-loader`, as a program of its own.

The library is GPL-3.0-or-later. It is loaded here and nowhere else, in a process that does nothing but speak: text on
standard input, sound on standard output, as the program `espeak-ng` does it.

    python -I speech_espeak.py --stdin --stdout -v VOICE -s WORDS_PER_MINUTE
    python -I speech_espeak.py --voices
    python -I speech_espeak.py --voices=variant
"""

from __future__ import annotations

import argparse
import ctypes
import os
import struct
import sys
from typing import Any

_SYNCHRONOUS = 2
_RATE_PARAMETER = 1
_CHARACTERS = 1
_UTF8 = 1
_END_PAUSE = 0x1000


class _Voice(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    ]


def _library() -> tuple[ctypes.CDLL, int]:
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    # The data folder is the one that holds `espeak-ng-data`; the library takes either.
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, os.fsencode(espeakng_loader.get_data_path()), 0)
    if rate <= 0:
        raise SystemExit("espeak-ng does not start")
    return library, rate


def _list(library: ctypes.CDLL, variants: bool) -> None:
    """The lines of `espeak-ng --voices`."""
    library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
    wanted = _Voice(languages=ctypes.cast(ctypes.c_char_p(b"variant"), ctypes.c_void_p)) if variants else None
    voices = library.espeak_ListVoices(ctypes.byref(wanted) if wanted else None)
    print("Pty Language       Age/Gender VoiceName          File                 Other Languages")
    for voice in voices:
        if not voice:
            break
        found = voice.contents
        (priority, language), *others = _languages(found.languages)
        gender = {1: "M", 2: "F"}.get(found.gender, "-")
        name = found.name.decode().replace(" ", "_")
        more = "".join(f"({other} {number})" for number, other in others)
        print(f"{priority:2}  {language:<15} --/{gender}      {name:<18} {found.identifier.decode():<20} {more}")


def _languages(address: int) -> list[tuple[int, str]]:
    """Priorities and names: each a byte and a text that ends with a zero; a zero ends the list."""
    found = []
    while priority := ctypes.string_at(address, 1)[0]:
        name = ctypes.string_at(address + 1)
        found.append((priority, name.decode()))
        address += len(name) + 2
    return found or [(0, "-")]


def _speak(library: ctypes.CDLL, rate: int, voice: str, words_per_minute: int) -> None:
    text = sys.stdin.buffer.read().replace(b"\0", b" ")
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise SystemExit(f"no such voice: {voice}")
    library.espeak_SetParameter(_RATE_PARAMETER, words_per_minute, 0)
    output = sys.stdout.buffer
    # Lengths as espeak-ng itself writes them when they are not known.
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
    output.write(struct.pack("<4sI4s", b"RIFF", 0x7FFFF024, b"WAVE") + form + struct.pack("<4sI", b"data", 0x7FFFF000))

    def made(samples: Any, count: int, _: int) -> int:
        if samples and count > 0:
            output.write(ctypes.string_at(samples, count * 2))
        return 0

    signature = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    # Kept in a name: the library holds no reference.
    callback = signature(made)
    library.espeak_SetSynthCallback(callback)
    library.espeak_Synth(text, ctypes.c_size_t(len(text) + 1), 0, _CHARACTERS, 0, _UTF8 | _END_PAUSE, None, None)
    library.espeak_Synchronize()
    output.flush()


def main() -> None:
    """Do what the arguments say."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--stdin", action="store_true")
    arguments.add_argument("--stdout", action="store_true")
    arguments.add_argument("--voices", nargs="?", const="all")
    arguments.add_argument("-b", default="1")
    arguments.add_argument("-v", default="en-us")
    arguments.add_argument("-s", type=int, default=175)
    asked = arguments.parse_args()
    library, rate = _library()
    if asked.voices:
        _list(library, asked.voices == "variant")
    else:
        _speak(library, rate, asked.v, asked.s)


if __name__ == "__main__":
    main()
