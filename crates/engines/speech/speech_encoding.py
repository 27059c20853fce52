"""Sound files written as the sound is made, and sound at any rate brought to 24 kHz (audio contract 4)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

#: Samples per second of everything that is written.
RATE = 24_000
#: What a WAV file says of its length when that is not known yet.
_UNKNOWN = 0xFFFFFFFF


@dataclass(frozen=True)
class _Format:
    """How PyAV writes one `domain::audio::AudioFormat`."""

    content_type: str
    container: str = ""
    codec: str = ""
    bit_rate: int = 0
    options: dict[str, str] = field(default_factory=dict)


FORMATS = {
    # Without the frame at the head that tells the length, for that is written last.
    "mp3": _Format("audio/mpeg", "mp3", "libmp3lame", 96_000, {"write_xing": "0", "id3v2_version": "0"}),
    # Pages of 0.2 s, so that a page is full soon.
    "opus": _Format("audio/ogg", "ogg", "libopus", 48_000, {"page_duration": "200000"}),
    "aac": _Format("audio/aac", "adts", "aac", 96_000),
    "flac": _Format("audio/flac", "flac", "flac"),
    "wav": _Format("audio/wav"),
    "pcm": _Format("audio/pcm"),
}


class _Sink:
    """Where PyAV writes to. It cannot go back, so nothing already sent is changed."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def write(self, data: bytes) -> int:
        self._bytes += data
        return len(data)

    def take(self) -> bytes:
        taken = bytes(self._bytes)
        self._bytes.clear()
        return taken


def _frame(samples: NDArray[np.int16], rate: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples, dtype=np.int16).reshape(1, -1), format="s16", layout="mono"
    )
    frame.sample_rate = rate
    return frame


class Encoder:
    """Writes one file. `rate` is that of the sound it is given: mono, 16 bit."""

    def __init__(self, name: str, rate: int) -> None:
        self._format = FORMATS[name]
        self._rate = rate
        self._resampler = None if rate == RATE else av.AudioResampler(format="s16", layout="mono", rate=RATE)
        self._sink = _Sink()
        self._container: Any = None
        self._written = 0
        if self._format.container:
            self._container = av.open(
                self._sink,
                mode="w",
                format=self._format.container,
                # Nothing is held back until more has come.
                options={"flush_packets": "1", **self._format.options},
            )
            self._stream = self._container.add_stream(self._format.codec, rate=RATE, layout="mono")
            if self._format.bit_rate:
                self._stream.bit_rate = self._format.bit_rate
        elif name == "wav":
            self._sink.write(_wav_header())

    @property
    def content_type(self) -> str:
        return self._format.content_type

    def write(self, samples: NDArray[np.int16]) -> bytes:
        """Add sound. Returns what can be sent by now."""
        if len(samples):
            self._add(samples)
        return self._sink.take()

    def finish(self) -> bytes:
        """End the file. Returns its last bytes."""
        if self._resampler is not None:
            for frame in self._resampler.resample(None):
                self._encode(frame.to_ndarray().reshape(-1).astype(np.int16, copy=False))
        if self._container is not None:
            for packet in self._stream.encode(None):
                self._container.mux(packet)
            self._container.close()
        return self._sink.take()

    def _add(self, samples: NDArray[np.int16]) -> None:
        if self._resampler is None:
            self._encode(samples)
            return
        for frame in self._resampler.resample(_frame(samples, self._rate)):
            self._encode(frame.to_ndarray().reshape(-1).astype(np.int16, copy=False))

    def _encode(self, samples: NDArray[np.int16]) -> None:
        if self._container is None:
            self._sink.write(samples.astype("<i2").tobytes())
            return
        frame = _frame(samples, RATE)
        frame.pts = self._written
        self._written += len(samples)
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


def _wav_header() -> bytes:
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", _UNKNOWN, b"WAVE", b"fmt ", 16, 1, 1, RATE, RATE * 2, 2, 16, b"data", _UNKNOWN
    )
