"""Speaking: sentence by sentence, so that the first sound leaves before the last is made (audio contract 8)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from speech_encoding import FORMATS, Encoder
from speech_jobs import Job, Refused
from speech_voices import VoiceEngine, not_found

#: What OpenAI allows (audio contract 4).
_SLOWEST, _FASTEST = 0.25, 4.0


@dataclass(frozen=True)
class Request:
    """What is to be said: `domain::audio::Speaking`. No engine here can follow instructions."""

    sentences: tuple[str, ...]
    voice: str
    speed: float
    format: str

    @classmethod
    def parse(cls, body: Any) -> Request:
        """Read the JSON of a request. Raises `Refused` when it is not one."""
        try:
            sentences = tuple(each for each in map(str, body["sentences"]) if each.strip())
            form = body.get("format", "mp3")
            speed = float(body.get("speed", 1.0))
            if not sentences:
                raise ValueError("there is nothing to say")
            if form not in FORMATS:
                raise ValueError(f"format is one of {', '.join(FORMATS)}")
            if not math.isfinite(speed) or not _SLOWEST <= speed <= _FASTEST:
                raise ValueError(f"speed is {_SLOWEST} to {_FASTEST:g}")
            return cls(sentences, str(body.get("voice") or "alloy"), speed, form)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Refused(400, "invalid_value", f"The request cannot be read: {error}.") from error


class Speaking:
    """A voice engine that is ready."""

    def __init__(self, engine: VoiceEngine, device: str) -> None:
        self._engine = engine
        self._device = device

    @property
    def facts(self) -> dict[str, Any]:
        """What the line `ready` and the health answer say."""
        return {
            "device": self._device,
            "compute_type": "auto",
            "multilingual": len(self.languages) > 1,
            "translates": False,
            "languages": self.languages,
            "backend": self._engine.backend,
        }

    @property
    def languages(self) -> list[str]:
        return sorted({each.language for each in self._engine.voices() if each.language})

    @property
    def voices(self) -> list[dict[str, Any]]:
        """All voices, as `domain::audio::Voice`."""
        return [asdict(each) for each in self._engine.voices()]

    def say(self, request: Request, job: Job) -> float:
        """The whole job: hands the bytes of a sound file to the client as they are made.

        Returns the length of the sound in seconds.
        """
        voice = self._engine.voice(request.voice)
        if voice is None:
            raise not_found(self._engine, request.voice)
        encoder: Encoder | None = None
        rate = 0
        seconds = 0.0
        for sentence in request.sentences:
            for sound in self._engine.say(sentence, voice, request.speed, job):
                job.window()
                if encoder is None:
                    rate = sound.rate
                    encoder = Encoder(request.format, rate)
                elif sound.rate != rate:
                    raise RuntimeError("the voice changed its rate")
                seconds += len(sound.samples) / sound.rate
                if made := encoder.write(sound.samples):
                    job.put(made)
        if encoder is None:
            raise Refused(400, "invalid_value", "There is nothing in the text that can be spoken.")
        if made := encoder.finish():
            job.put(made)
        return seconds
