"""Records what faster-whisper hears for the cases of `tests/golden/audio`, in the lines of the speech program.

Run with the Python of the speech environment: `python tests/golden/record_audio.py`.
"""

import json
import pathlib

from faster_whisper import WhisperModel

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "crates/testkit/fixtures"
GOLDEN = ROOT / "tests/golden/audio"

WORDS = {"word_timestamps": True}
ENGLISH = {"task": "translate"}
VERBOSE = "response_format=verbose_json"

# Case, recording, options of the engine, fields of the form.
CASES = [
    ("json", "hello.wav", {}, ["model=whisper-1"]),
    ("text", "hello.wav", {}, ["response_format=text"]),
    ("srt", "two-sentences.wav", {}, ["response_format=srt"]),
    ("vtt", "two-sentences.wav", {}, ["response_format=vtt", "language=en"]),
    ("verbose", "hello.wav", WORDS, [VERBOSE, "timestamp_granularities[]=word", "timestamp_granularities[]=segment"]),
    ("verbose-words", "fox.wav", WORDS, [VERBOSE, "timestamp_granularities[]=word"]),
    ("translate", "german-morning.mp3", ENGLISH, ["task=translate"]),
    ("translate-verbose", "spanish-beach.ogg", ENGLISH, ["task=translate", VERBOSE]),
    ("silence", "silence-3s.wav", {}, ["model=whisper-1"]),
    ("stream", "long-90s.ogg", {}, ["stream=true"]),
    ("stream-srt", "two-sentences.wav", {}, ["stream=true", "response_format=srt"]),
    ("stream-words", "hello.wav", WORDS, ["stream=true", VERBOSE, "timestamp_granularities[]=word"]),
]
FACTS = ["seek", "start", "end", "text", "tokens", "temperature", "avg_logprob", "compression_ratio", "no_speech_prob"]


def lines(model, recording, options):
    segments, info = model.transcribe(str(FIXTURES / "audio" / recording), beam_size=5, **options)
    segments = list(segments)
    yield {
        "event": "info",
        "duration": info.duration,
        "language": info.language if segments else None,
        "language_probability": info.language_probability,
    }
    for segment in segments:
        event = {"event": "segment", "id": segment.id - 1} | {fact: getattr(segment, fact) for fact in FACTS}
        if segment.words:
            event["words"] = [vars(word) | {} for word in segment.words]
        yield event
        yield {"event": "progress", "progress": round(segment.end / info.duration, 3)}
    yield {"event": "done", "processing_s": 0.31}


def main():
    model = WhisperModel(str(FIXTURES / "models/tiny-whisper"), device="cpu", compute_type="int8")
    for name, recording, options, form in CASES:
        case = GOLDEN / name
        case.mkdir(parents=True, exist_ok=True)
        (case / "form.txt").write_text("".join(f"{field}\n" for field in form))
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines(model, recording, options))
        (case / "engine.ndjson").write_text(text)


main()
