"""Recordings: any container and codec that PyAV brings becomes mono sound at 16 kHz, in bounded memory.

What a file is, is found out from its bytes. Its name plays no part, and it cannot make the decoder open other files.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator, Iterator
from typing import Any, BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from speech_jobs import Job, Refused

#: What Whisper hears, in samples per second.
RATE = 16_000
#: Seconds of sound kept in memory (115 MB). What is longer is decoded again while it is heard.
_KEPT_S = 3_600
#: Seconds of one part. What Whisper makes of an hour at once takes gigabytes, of this 100 MB.
PART_S = 180
#: Where the quietest moment to cut at is looked for: this many seconds before the end of a part.
_CUT_WITHIN_S = 40
#: Decoding that takes longer than this, in seconds, is given up: a small file can hold months of silence.
_DECODING_S = 300

#: Sound of fewer samples per second is none. One frame of it could become gigabytes at 16 kHz.
_LEAST_RATE = 1_000

#: Containers. Playlists and the like are not among them, for they name other files.
_CONTAINERS = (
    "wav,w64,aiff,caf,au,mp3,aac,flac,ogg,mov,matroska,webm,mpeg,mpegts,avi,asf,flv,amr,ac3,eac3,wv,ape,tta,dsf,loas"
)
#: Nothing but the bytes at hand may be opened.
_OPTIONS = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "none"}


class _Bytes:
    """A file without its name, which would be a hint for the decoder."""

    def __init__(self, file: BinaryIO) -> None:
        self.read = file.read
        self.seek = file.seek
        self.tell = file.tell


def _unsupported() -> Refused:
    return Refused(
        400,
        "unsupported_audio",
        "The file is damaged, or it is no sound file. Send wav, mp3, m4a, ogg, opus, flac, webm, mp4, mpeg or aac.",
    )


def _resample(frame: av.AudioFrame | None, resampler: av.AudioResampler | None) -> Iterator[NDArray[np.int16]]:
    if resampler is None:
        return
    for resampled in resampler.resample(frame):
        yield resampled.to_ndarray().reshape(-1).astype(np.int16, copy=False)


def _decode(path: str) -> Generator[NDArray[np.int16], None, None]:
    """The sound of a file, piece by piece, as far as it can be decoded.

    Raises `Refused` with a code of the audio contract 6.
    """
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise Refused(400, "empty_file", "The file is empty.")
        try:
            container = av.open(_Bytes(file), mode="r", metadata_errors="ignore", options=_OPTIONS)
        except (av.error.FFmpegError, ValueError, OSError) as error:
            raise _unsupported() from error
        with container:
            if not container.streams.audio:
                raise Refused(400, "no_audio_stream", "The file has no sound track.")
            yield from _decode_stream(container)


def _frames(container: Any) -> Iterator[av.AudioFrame | None]:
    """The frames of the first sound track; `None` stands for a damaged piece, after which it goes on."""
    packets = container.demux(audio=0)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.EOFError):
            return
        except (av.error.FFmpegError, IndexError):
            yield None
            return
        try:
            frames = packet.decode()
        except av.error.EOFError:
            return
        except (av.error.FFmpegError, IndexError):
            yield None
        else:
            yield from frames


def _decode_stream(container: Any) -> Iterator[NDArray[np.int16]]:
    resampler: av.AudioResampler | None = None
    form: tuple[Any, ...] = ()
    decoded = failed = False
    for frame in _frames(container):
        if frame is None or frame.sample_rate < _LEAST_RATE:
            failed = True
            # Nothing, but a sign that it goes on.
            yield np.zeros(0, dtype=np.int16)
            continue
        decoded = True
        if form != (frame.format.name, frame.layout.name, frame.sample_rate):
            # It may change within a file.
            yield from _resample(None, resampler)
            form = (frame.format.name, frame.layout.name, frame.sample_rate)
            resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
        # Times in damaged files go backwards; the order of the frames is what counts.
        frame.pts = None
        yield from _resample(frame, resampler)
    yield from _resample(None, resampler)
    if failed and not decoded:
        raise _unsupported()


class Recording:
    """A recording that was decoded once to its end, so that what is wrong with it is known."""

    def __init__(self, path: str, kept: list[NDArray[np.int16]] | None, samples: int) -> None:
        self._path = path
        self._kept = kept
        self.samples = samples

    @property
    def duration(self) -> float:
        """Its length in seconds."""
        return self.samples / RATE

    @classmethod
    def read(cls, path: str, max_duration_s: float, job: Job) -> Recording:
        """Decode `path`. Raises `Refused`, or `Cancelled` when the client leaves meanwhile."""
        started = time.monotonic()
        kept: list[NDArray[np.int16]] | None = []
        samples = 0
        with contextlib.closing(_decode(path)) as pieces:
            for piece in pieces:
                samples += len(piece)
                if max_duration_s and samples > max_duration_s * RATE:
                    raise Refused(
                        400,
                        "audio_too_long",
                        f"The recording is longer than the {max_duration_s:g} s that are allowed.",
                    )
                if samples > _KEPT_S * RATE:
                    kept = None
                if kept is not None and len(piece):
                    kept.append(piece)
                job.sign()
                if time.monotonic() - started > _DECODING_S:
                    raise Refused(400, "audio_too_long", "The recording takes too long to decode. Send it in parts.")
        return cls(path, kept, samples)

    def parts(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The sound from its beginning in parts of a few minutes, cut where it is quiet.

        Each comes with the number of its first sample.
        """
        offset = waiting = 0
        pieces: list[NDArray[np.int16]] = []
        for piece in self._kept if self._kept is not None else _decode(self._path):
            pieces.append(piece)
            waiting += len(piece)
            # Another part must remain that is long enough to be understood.
            if waiting < (PART_S + _CUT_WITHIN_S) * RATE:
                continue
            sound = np.concatenate(pieces)
            cut = _quietest(sound[: PART_S * RATE])
            yield offset, _to_float(sound[:cut])
            offset += cut
            pieces = [sound[cut:]]
            waiting = len(pieces[0])
        if waiting:
            yield offset, _to_float(np.concatenate(pieces))


def _to_float(sound: NDArray[np.int16]) -> NDArray[np.float32]:
    return sound.astype(np.float32) / 32768.0


def _quietest(sound: NDArray[np.int16]) -> int:
    """Where to cut: the middle of the quietest half second near the end."""
    step = RATE // 20
    begin = len(sound) - _CUT_WITHIN_S * RATE
    steps = (len(sound) - begin) // step
    loud = np.abs(sound[begin : begin + steps * step].astype(np.float32)).reshape(steps, step).mean(axis=1)
    around = 10
    means = np.convolve(loud, np.full(around, 1.0 / around), mode="valid")
    return begin + (int(np.argmin(means)) + around // 2) * step
