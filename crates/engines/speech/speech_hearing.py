"""Hearing: faster-whisper, loaded once, and what it makes of a recording (audio contract 7).

faster-whisper's own voice filter joins what is left after the silence is taken out. That moves sentences into other
windows and so changes their texts and times. Here a window begins with speech instead, windows without any are left
out, and text that lies in silence is dropped; what is heard is heard as it was recorded.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speech_decoding import RATE, Recording
from speech_jobs import Job, Refused

Sound = NDArray[np.float32]

#: What Whisper hears at once, in seconds.
_WINDOW_S = 30
#: Recordings over this many seconds have their silence left out unless that is refused (audio contract 7.5).
_FILTER_OVER_S = 30
#: Recordings over this many seconds are heard in batches, where that is faster (audio contract 7.4).
_BATCH_OVER_S = 60
#: Less than this cannot be understood; Whisper may invent a word (audio contract 7.6). In seconds.
_LEAST_S = 0.1
#: Below this every sample counts as silence: a step of 16 bit sound is 0.00003.
_SILENT = 0.0005
#: A detection less sure than this needs speech to be believed.
_SURE = 0.5
#: Tokens of earlier text that Whisper can take.
_PROMPT_TOKENS = 223
#: Above this temperature earlier text is not used as a prompt, as in Whisper itself.
_PROMPT_RESET_TEMPERATURE = 0.5
_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_MOST_BEAMS = 32


@dataclass(frozen=True)
class Request:
    """What is asked: `domain::audio::Listening` with the path of the upload."""

    path: str
    translate: bool = False
    force: bool = False
    language: str | None = None
    languages: tuple[str, ...] = ()
    prompt: str | None = None
    hotwords: str | None = None
    temperatures: tuple[float, ...] = _TEMPERATURES
    beam_size: int | None = None
    word_timestamps: bool = False
    without_timestamps: bool = False
    #: `None`: by length.
    voice_filter: bool | None = None
    voice_activity: dict[str, float] = field(default_factory=dict)
    max_duration_s: float = 0.0
    batched: bool = False

    @classmethod
    def parse(cls, body: Any) -> Request:
        """Read the JSON of a request. Raises `Refused` when it is not one."""
        try:
            if body.get("task", "transcribe") not in ("transcribe", "translate"):
                raise ValueError("task is transcribe or translate")
            asked = body.get("voice_filter", "auto")
            numbers = asked["on"] or {} if isinstance(asked, dict) else {}
            beams = body.get("beam_size")
            if beams is not None and not 1 <= int(beams) <= _MOST_BEAMS:
                raise ValueError(f"beam_size is 1 to {_MOST_BEAMS}")
            return cls(
                path=str(body["path"]),
                translate=body.get("task") == "translate",
                force=bool(body.get("force", False)),
                language=body.get("language") or None,
                languages=tuple(map(str, body.get("languages") or ())),
                prompt=body.get("prompt") or None,
                hotwords=body.get("hotwords") or None,
                temperatures=tuple(float(each) for each in body.get("temperatures") or ()) or _TEMPERATURES,
                beam_size=None if beams is None else int(beams),
                word_timestamps=bool(body.get("word_timestamps", False)),
                without_timestamps=bool(body.get("without_timestamps", False)),
                voice_filter={"auto": None, "off": False, "on": True}["on" if isinstance(asked, dict) else asked],
                voice_activity={
                    name: float(numbers[name])
                    for name in ("threshold", "min_silence_duration_ms", "speech_pad_ms")
                    if numbers.get(name) is not None
                },
                max_duration_s=float(body.get("max_duration_s") or 0),
                batched=bool(body.get("batched", False)),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Refused(400, "invalid_value", f"The request cannot be read: {error}.") from error


@dataclass(frozen=True)
class _Stretch:
    """A stretch of a recording that is heard in one go."""

    #: Where it begins, in samples.
    begin: int
    sound: Sound
    #: Where in it there is speech, in seconds from its beginning; `None`: not looked for.
    speech: tuple[tuple[float, float], ...] | None

    def holds_speech(self, start: float, end: float) -> bool:
        return self.speech is None or any(start < until and end > since for since, until in self.speech)

    @property
    def speech_ends(self) -> float:
        return self.speech[-1][1] if self.speech else math.inf


class Hearing:
    """A loaded model."""

    def __init__(self, model: Any, name: str, device: str, compute_type: str, beam_size: int, batch_size: int) -> None:
        self._model = model
        self._beam_size = beam_size
        self._batch_size = batch_size
        self.device = device
        self.compute_type = compute_type
        self.multilingual = bool(model.model.is_multilingual)
        self.translates = self.multilingual and _can_translate(model, name)
        self.languages: list[str] = sorted(model.supported_languages)
        if getattr(model.model, "num_languages", 100) < 100:
            # Cantonese came with large-v3.
            self.languages = [each for each in self.languages if each != "yue"]

    @property
    def facts(self) -> dict[str, Any]:
        """What the line `ready` and the health answer say."""
        return {
            "device": self.device,
            "compute_type": self.compute_type,
            "multilingual": self.multilingual,
            "translates": self.translates,
            "languages": self.languages,
        }

    def check(self, request: Request) -> None:
        """Refuse what this model cannot do, before anything is decoded."""
        if request.translate and not self.translates and not request.force:
            raise Refused(
                400,
                "model_not_supported",
                "This model cannot translate. Use one that can, such as whisper-base or whisper-large-v3.",
            )
        if request.language is not None:
            self._check_language(request.language)
        if request.languages and not self._allowed(request):
            self._check_language(request.languages[0])

    def _check_language(self, code: str) -> None:
        if code in self.languages:
            return
        if not self.multilingual:
            raise Refused(400, "unsupported_language", f"This model understands English only, not '{code}'.")
        raise Refused(
            400,
            "unsupported_language",
            f"The language '{code}' is not supported. Use a code such as en, de, es, fr, ja or zh, or leave it out.",
        )

    def _allowed(self, request: Request) -> list[str]:
        return [each for each in request.languages if each in self.languages]

    def hear(self, request: Request, job: Job) -> float:
        """The whole job: hands events of `domain::audio::ListeningEvent` to the client, `info` first.

        Returns the length of the recording in seconds.
        """
        started = time.monotonic()
        self.check(request)
        recording = Recording.read(request.path, request.max_duration_s, job)
        filtered = request.voice_filter
        if filtered is None:
            filtered = recording.duration > _FILTER_OVER_S
        stretches = _stretches(recording, filtered, request.voice_activity, job)
        first = next(stretches, None)
        language, probability, sure = self._language(first, request)
        job.put(
            {
                "event": "info",
                "duration": round(recording.duration, 3),
                "language": language if sure else None,
                "language_probability": round(probability, 4) if sure else 0.0,
            }
        )
        if first is not None:
            if filtered and request.batched and self.device == "cuda" and recording.duration > _BATCH_OVER_S:
                heard = self._hear_batched(first, stretches, language, request, job)
            else:
                heard = self._hear_in_order(first, stretches, language, request, job)
            for number, segment in enumerate(heard):
                segment["id"] = number
                segment["end"] = min(segment["end"], round(recording.duration, 3))
                job.put({"event": "segment", **segment})
                job.put({"event": "progress", "progress": round(min(1.0, segment["end"] / recording.duration), 4)})
        job.put({"event": "done", "processing_s": round(time.monotonic() - started, 3)})
        return recording.duration

    def _language(self, first: _Stretch | None, request: Request) -> tuple[str, float, bool]:
        """The language to hear with, how likely it is, and whether there was anything to tell it from."""
        allowed = self._allowed(request)
        if request.language is not None:
            return request.language, 1.0, True
        if first is None or not self.multilingual:
            return "en", 1.0, first is not None
        if len(allowed) == 1:
            return allowed[0], 1.0, True
        window = first.sound[: _WINDOW_S * RATE]
        features = self._model.feature_extractor(window)
        language, probability, every = self._model.detect_language(features=features)
        if allowed:
            among = {code: each for code, each in every if code in allowed}
            language = max(among, key=lambda code: among[code]) if among else allowed[0]
            probability = among.get(language, 0.0) / (sum(among.values()) or 1.0)
        # Noise, too, is given some language.
        sure = probability >= _SURE or first.speech is not None or bool(_find_speech(window, {}))
        return language, float(probability), sure

    def _options(self, language: str, request: Request) -> dict[str, Any]:
        return {
            "language": language,
            "task": "translate" if request.translate else "transcribe",
            "beam_size": request.beam_size or self._beam_size,
            "temperature": list(request.temperatures),
            "hotwords": request.hotwords,
            "word_timestamps": request.word_timestamps,
            "without_timestamps": request.without_timestamps,
        }

    def _hear_in_order(
        self, first: _Stretch, others: Iterator[_Stretch], language: str, request: Request, job: Job
    ) -> Iterator[dict[str, Any]]:
        """Segments one window after the other, each with the text before it as its prompt."""
        prompt: list[int] = []
        if request.prompt:
            prompt = self._model.hf_tokenizer.encode(" " + request.prompt.strip(), add_special_tokens=False).ids[
                -_PROMPT_TOKENS:
            ]
        stretch: _Stretch | None = first
        while stretch is not None:
            segments, _ = self._model.transcribe(
                stretch.sound, initial_prompt=prompt or None, vad_filter=False, **self._options(language, request)
            )
            for segment in segments:
                job.window()
                if segment.start >= stretch.speech_ends:
                    break
                if stretch.holds_speech(segment.start, segment.end):
                    prompt = [*prompt, *segment.tokens][-_PROMPT_TOKENS:]
                    if segment.temperature > _PROMPT_RESET_TEMPERATURE:
                        prompt = []
                    yield _segment(segment, stretch.begin, request)
            job.window()
            stretch = next(others, None)

    def _hear_batched(
        self, first: _Stretch, others: Iterator[_Stretch], language: str, request: Request, job: Job
    ) -> Iterator[dict[str, Any]]:
        """Segments of several windows at a time: faster on a GPU, but no text is a prompt for the next."""
        from faster_whisper import BatchedInferencePipeline

        pipeline = BatchedInferencePipeline(self._model)
        stretch: _Stretch | None = first
        while stretch is not None:
            segments, _ = pipeline.transcribe(
                stretch.sound,
                initial_prompt=request.prompt,
                vad_filter=True,
                batch_size=self._batch_size,
                **self._options(language, request),
            )
            for segment in segments:
                job.window()
                yield _segment(segment, stretch.begin, request)
            job.window()
            stretch = next(others, None)


def _segment(segment: Any, begin: int, request: Request) -> dict[str, Any]:
    """A `domain::audio::Segment` but for its number."""
    offset = begin / RATE
    result = {
        "seek": int(segment.seek) + begin * 100 // RATE,
        "start": round(float(segment.start) + offset, 3),
        "end": round(float(segment.end) + offset, 3),
        "text": segment.text,
        "tokens": [int(each) for each in segment.tokens],
        "temperature": _finite(segment.temperature),
        "avg_logprob": _finite(segment.avg_logprob),
        "compression_ratio": _finite(segment.compression_ratio),
        "no_speech_prob": _finite(segment.no_speech_prob),
    }
    if request.word_timestamps:
        result["words"] = [
            {
                "word": word.word,
                "start": round(float(word.start) + offset, 3),
                "end": round(float(word.end) + offset, 3),
                "probability": _finite(word.probability),
            }
            for word in segment.words or ()
        ]
    return result


def _finite(number: Any) -> float:
    """JSON has no other numbers."""
    return round(float(number), 6) if number is not None and math.isfinite(number) else 0.0


def _find_speech(sound: Sound, numbers: dict[str, float]) -> list[tuple[int, int]]:
    """Where there is speech, in samples, by the Silero network that comes with faster-whisper."""
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    options = VadOptions(**{name: value if name == "threshold" else int(value) for name, value in numbers.items()})
    return [(int(each["start"]), int(each["end"])) for each in get_speech_timestamps(sound, options)]


def _stretches(recording: Recording, filtered: bool, numbers: dict[str, float], job: Job) -> Iterator[_Stretch]:
    """What is to be heard of a recording, in order."""
    if recording.duration < _LEAST_S:
        return
    for offset, sound in recording.parts():
        job.sign()
        if not filtered:
            if float(np.abs(sound).max(initial=0.0)) >= _SILENT:
                yield _Stretch(offset, sound, None)
            continue
        for begin, end, speech in _windows_with_speech(_find_speech(sound, numbers), len(sound)):
            yield _Stretch(
                offset + begin, sound[begin:end], tuple(((a - begin) / RATE, (b - begin) / RATE) for a, b in speech)
            )


def _windows_with_speech(
    speech: list[tuple[int, int]], length: int
) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Begin, end and speech of runs of whole windows; a run ends where the next speech lies beyond its last window."""
    window = _WINDOW_S * RATE
    run: list[tuple[int, int]] = []

    def ends() -> int:
        begin = run[0][0]
        return begin + -(-(run[-1][1] - begin) // window) * window

    for stretch in speech:
        if run and stretch[0] >= ends():
            yield run[0][0], ends(), run
            run = []
        run.append(stretch)
    if run:
        yield run[0][0], min(ends(), length), run


def _can_translate(model: Any, name: str) -> bool:
    """Whether the model learned to translate. `turbo` and the distilled ones answer in the language they hear."""
    if any(word in name.lower() for word in ("distil", "turbo")):
        return False
    # A folder may have any name. Of the large ones, with 128 mel bands, only those two have few decoder layers.
    return not (model.model.n_mels == 128 and _decoder_layers(model) < 10)


def _decoder_layers(model: Any) -> int:
    heads = getattr(model, "alignment_heads", None) or [[31, 0]]
    return 1 + max(int(layer) for layer, _ in heads)
