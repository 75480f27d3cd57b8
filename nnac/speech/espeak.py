"""Speech from text with espeak-ng, from the `espeakng-loader` wheel (library and voices in one), through ctypes.

The library keeps state from one sentence to the next (lengths differ by some samples), so a sentence spoken second is
not the sentence spoken first.  Hence: initialise once, never speak in that process, and fork for each sentence.  The
child inherits the freshly initialised library, speaks once, sends the samples through a pipe and ends.  (Measured in
the prototype: one fork costs about what the synthesis costs; `espeak_Terminate` and a second `espeak_Initialize` hung.)
"""
from __future__ import annotations

import ctypes
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnac.errors import UserError

_SYNCHRONOUS, _DO_NOT_EXIT = 2, 0x8000
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4

# Accent files under espeak-ng-data/lang.  `en-Shaw` speaks as `en`, so it is left out.
ACCENTS = ("gmw/en-US", "gmw/en-US-nyc", "gmw/en", "gmw/en-GB-x-rp", "gmw/en-GB-scotland", "gmw/en-029")
NEW_ACCENTS = ("gmw/en-GB-x-gbclan", "gmw/en-GB-x-gbcwmd")
# Variant files under espeak-ng-data/voices/!v.  Names are case-sensitive, and the library answers an unknown one with
# the plain accent, silently; `Espeak` therefore checks the files, and a test checks that no two voices speak alike
# (`fast` = plain).
VARIANTS = tuple(
    "Alex Alicia Andrea Andy Annie Denis Diogo Gene Gene2 Henrique Hugo Marco Mario Mike Nguyen Reed RicishayMax "
                 "RicishayMax3 "
    "Storm anika announcer aunty belinda benjamin boris caleb david ed edward edward2 f1 f2 f3 grandma grandpa gustave "
                 "ian "
    "iven iven2 iven3 john kaukovalta klatt klatt3 klatt4 klatt5 linda m1 m2 m3 m5 m7 marcelo mike2 norbert pablo paul "
                 "quincy "
    "rob robert sandro shelby steph steph2 travis zac".split())
NEW_VARIANTS = tuple("adam antonio Jacky Lee max michel miguel pedro steph3 victor f4 f5 m4 m6 m8 klatt2 "
                     "Michael".split())


class EspeakError(UserError):
    """The engine cannot be used; the message says what to do."""


class Espeak:
    """An initialised engine.  ``rate`` is its sample rate in Hz."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError:
            raise EspeakError("the corpus needs the wheel `espeakng-loader`: pip install 'nnac[speech]'") from None
        data = Path(espeakng_loader.get_data_path())
        self._check_voices(data)
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        # the library wants the folder that holds espeak-ng-data
        self.rate = self._library.espeak_Initialize(_SYNCHRONOUS, 400, str(data.parent).encode(), _DO_NOT_EXIT)
        if self.rate <= 0:
            raise EspeakError(f"espeak-ng cannot be initialised with the data in {data}")
        self._chunks: list[bytes] = []
        prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        self._callback = prototype(self._collect)      # kept: the library holds only a bare pointer to it
        self._library.espeak_SetSynthCallback(self._callback)

    @staticmethod
    def _check_voices(data: Path) -> None:
        wanted = [data / "lang" / a for a in ACCENTS + NEW_ACCENTS] + [data / "voices" / "!v" / v for v in VARIANTS +
                                                                       NEW_VARIANTS]
        missing = [str(p.relative_to(data)) for p in wanted if not p.is_file()]
        if missing:
            raise EspeakError(f"espeakng-loader lacks {len(missing)} voices ({', '.join(missing[:4])} …); version "
                              f"0.2.4 has them")

    def _collect(self, samples: int, count: int, _events: int) -> int:
        if samples and count > 0:
            self._chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    def _speak_here(self, text: str, voice: str, words_per_minute: int, pitch: int) -> bytes:
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            return b""
        # breath noise: the library's own generator is seeded by the time of day, and Klatt voices call the C library's
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        ctypes.CDLL(None).srand(1)
        for parameter, value in ((_RATE, words_per_minute), (_PITCH, pitch), (_RANGE, 50), (_VOLUME, 80)):
            self._library.espeak_SetParameter(parameter, value, 0)
        data = text.encode() + b"\0"
        self._library.espeak_Synth(data, len(data), 0, 1, 0, 1, None, None)
        self._library.espeak_Synchronize()
        return b"".join(self._chunks)

    def speak(self, text: str, voice: str, words_per_minute: int = 175, pitch: int = 50) -> NDArray:
        """int16 samples at ``rate``, the same for the same arguments, always.  ``voice`` is accent+variant; pitch
        0-99."""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.close(reader)
                with os.fdopen(writer, "wb") as out:
                    out.write(self._speak_here(text, voice, words_per_minute, pitch))
                status = 0
            finally:
                os._exit(status)       # no clean-up of what belongs to the parent
        os.close(writer)
        with os.fdopen(reader, "rb") as source:
            data = source.read()
        _, status = os.waitpid(child, 0)
        if status != 0 or not data:
            raise EspeakError(f"espeak-ng said nothing for voice {voice!r}, text {text!r}")
        return np.frombuffer(data, np.int16)
