"""What is heard: the fixtures' texts, what is refused, and how a recording's answer comes."""
import json
import time
import wave

import pytest

from conftest import AUDIO, MODEL, engine, inside

EXPECTED = json.loads((AUDIO / "expected.json").read_text())


def check_segments(heard, expected):
    assert [segment["text"].strip() for segment in heard.segments] == [segment["text"] for segment in expected]
    assert [segment["id"] for segment in heard.segments] == list(range(len(expected)))
    for got, wanted in zip(heard.segments, expected):
        assert abs(got["start"] - wanted["start"]) < 0.2 and abs(got["end"] - wanted["end"]) < 0.2, (got, wanted)


@pytest.mark.parametrize("name", [name for name in EXPECTED if EXPECTED[name]["exact"]])
def test_every_recording_is_heard_exactly(hearing, name):
    expected = EXPECTED[name]
    heard = hearing.hear(AUDIO / name)
    assert heard.text == expected["got_text"]
    assert heard.info["language"] == expected["language"]
    assert abs(heard.info["duration"] - expected["duration"]) < 0.002
    check_segments(heard, expected["segments"])
    assert heard.last["event"] == "done" and heard.last["processing_s"] > 0
    assert all("words" not in segment for segment in heard.segments)


@pytest.mark.parametrize("name", [name for name in EXPECTED if EXPECTED[name]["translation_exact"]])
def test_every_recording_is_translated_exactly(hearing, name):
    heard = hearing.hear(AUDIO / name, task="translate")
    assert heard.text == EXPECTED[name]["got_translation"]
    assert heard.info["language"] == EXPECTED[name]["language"]


def test_what_is_cut_short_is_heard_as_far_as_it_goes(hearing):
    assert hearing.hear(AUDIO / "truncated.wav").text == "Hello, this is a test."


def test_after_a_damaged_piece_it_goes_on(tmp_path):
    """The rest of a recording is not lost with one damaged frame."""
    whole, damaged, bad_rate = inside("""
import json, random, struct, speech_decoding as decoding
from speech_encoding import Encoder
import numpy as np
class Job:
    def sign(self): pass
length = lambda: decoding.Recording.read(sys.argv[1], 0, Job()).duration
encoder = Encoder("mp3", 24000)
sound = (8000 * np.sin(np.arange(20 * 24000) * 0.05)).astype(np.int16)
data = bytearray(encoder.write(sound) + encoder.finish())
lengths = []
for begin, end in ((0, 0), (len(data) // 3, len(data) // 3 + 600)):
    data[begin:end] = random.Random(1).randbytes(end - begin)
    open(sys.argv[1], "wb").write(data)
    lengths.append(length())
# A sample per second: each would become 16 000.
header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 40036, b"WAVE", b"fmt ", 16, 1, 1, 1, 2, 2, 16, b"data", 40000)
open(sys.argv[1], "wb").write(header + bytes(40000))
try:
    lengths.append(length())
except decoding.Refused as refused:
    lengths.append(refused.code)
print(json.dumps(lengths))
""", tmp_path / "recording")
    assert abs(whole - 20) < 0.1 and whole - 0.5 < damaged <= whole
    assert bad_rate == "unsupported_audio"


def write_wav(path, seconds, rate=16000, level=0):
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes((level.to_bytes(2, "little", signed=True) + (-level).to_bytes(2, "little", signed=True)) * int(seconds * rate / 2))
    return path


@pytest.mark.parametrize("options", [{}, {"voice_filter": {"on": {}}}, {"voice_filter": "off"}, {"language": "de"}])
@pytest.mark.parametrize("seconds", [0, 0.09, 3, 40])
def test_where_nothing_is_said_the_text_is_empty(hearing, tmp_path, seconds, options):
    heard = hearing.hear(write_wav(tmp_path / "silence.wav", seconds), **options)
    assert heard.text == "" and heard.segments == []
    assert heard.info["language"] == options.get("language")
    assert abs(heard.info["duration"] - seconds) < 0.01
    assert heard.last["event"] == "done"


def test_what_is_too_short_to_be_understood_is_not_guessed_at(hearing, tmp_path):
    heard = hearing.hear(write_wav(tmp_path / "click.wav", 0.09, level=8000))
    assert (heard.text, heard.info["language"], heard.info["duration"]) == ("", None, 0.09)


@pytest.mark.parametrize("name, code", [
    ("empty.wav", "empty_file"), ("not-audio.mp3", "unsupported_audio"), ("corrupt.wav", "unsupported_audio"),
    ("video-without-sound.mp4", "no_audio_stream"),
])
def test_what_cannot_be_heard_is_refused(hearing, name, code):
    answer = hearing.post("/transcribe", path=str(AUDIO / name))
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["message"].endswith(".")


@pytest.mark.parametrize("text", ["#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:3,\n{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile '{}'\n"])
@pytest.mark.parametrize("name", ["hello.wav", str(AUDIO / "hello.wav")])
def test_a_playlist_opens_no_other_file(tmp_path, text, name):
    (tmp_path / "list").write_text(text.format(name))
    refused = inside("""
import json, os, speech_decoding as decoding
# Names in a playlist are taken from here.
os.chdir(sys.argv[2])
try:
    print(json.dumps(sum(map(len, decoding._decode(sys.argv[1])))))
except decoding.Refused as refused:
    print(json.dumps(refused.code))
""", tmp_path / "list", AUDIO)
    assert refused == "unsupported_audio"


def test_a_name_says_nothing_about_a_file(hearing, tmp_path):
    path = tmp_path / "upload.mp4"
    path.write_bytes((AUDIO / "fox.wav").read_bytes())
    assert hearing.hear(path).text == EXPECTED["fox.wav"]["got_text"]


def test_words_have_times_when_they_are_asked_for(hearing):
    for name in ("hello.mp3", "long-90s.ogg"):
        heard = hearing.hear(AUDIO / name, word_timestamps=True)
        words = [word for segment in heard.segments for word in segment["words"]]
        assert "".join(word["word"] for word in words).strip() == EXPECTED[name]["got_text"]
        assert all(word["start"] <= word["end"] for word in words)
        assert [word["start"] for word in words] == sorted(word["start"] for word in words)


def test_a_recording_without_times_has_its_text(hearing):
    assert hearing.hear(AUDIO / "fox.wav", without_timestamps=True).text == EXPECTED["fox.wav"]["got_text"]


def test_languages(hearing):
    fox = AUDIO / "fox.wav"
    assert hearing.hear(fox, language="en").info == {"event": "info", "duration": 3.153, "language": "en", "language_probability": 1.0}
    assert hearing.hear(fox, languages=["de"]).info["language"] == "de"
    assert hearing.hear(fox, languages=["de", "en", "xx"]).info["language"] == "en"
    assert hearing.hear(fox, languages=["de", "es"]).info["language"] in ("de", "es")
    for wrong in ({"language": "xx"}, {"languages": ["xx", "klingon"]}):
        answer = hearing.post("/transcribe", path=str(fox), **wrong)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unsupported_language")
        assert "such as en, de" in answer.json()["error"]["message"]


def test_the_other_options_are_taken(hearing):
    heard = hearing.hear(
        AUDIO / "fox.wav", task="transcribe", language=None, languages=[], prompt="A zoo. " * 400, hotwords="fox dog",
        temperatures=[0.0, 0.2], beam_size=1, word_timestamps=False, without_timestamps=False,
        voice_filter={"on": {"threshold": 0.4, "min_silence_duration_ms": 500, "speech_pad_ms": 200}}, max_duration_s=0, batched=True,
    )
    assert heard.info["language"] == "en" and heard.last["event"] == "done"
    # The tiny model is led astray by words to expect: they reach it.
    assert hearing.hear(AUDIO / "fox.wav", hotwords="service").text != EXPECTED["fox.wav"]["got_text"]


@pytest.mark.parametrize("body", [
    {"path": 5, "temperatures": "x"}, {"path": "x", "task": "sing"}, {"path": "x", "beam_size": 0}, {"path": "x", "voice_filter": "maybe"}, {}, [],
])
def test_a_request_that_makes_no_sense_is_refused(hearing, body):
    with hearing.client as client:
        answer = client.post("/transcribe", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")


def test_a_recording_may_be_too_long(hearing, tmp_path):
    answer = hearing.post("/transcribe", path=str(AUDIO / "long-90s.ogg"), max_duration_s=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "audio_too_long")
    assert "60 s" in answer.json()["error"]["message"]
    # An hour of silence in a few hundred kilobytes is never unpacked.
    bomb = tmp_path / "bomb.flac"
    size = inside("""
import json, av, numpy as np
with av.open(sys.argv[1], "w", format="flac") as container:
    stream = container.add_stream("flac", rate=8000, layout="mono")
    for _ in range(60):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 480_000), dtype=np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
print(json.dumps(__import__("os").path.getsize(sys.argv[1])))
""", bomb)
    assert size < 700_000
    before = hearing.stats()["rss_bytes"]
    answer = hearing.post("/transcribe", path=str(bomb), max_duration_s=60)
    assert answer.json()["error"]["code"] == "audio_too_long"
    assert hearing.stats()["rss_bytes"] - before < 20_000_000


def test_segments_come_while_the_rest_is_heard(hearing):
    """Each line arrives when it is made: a window of work lies between the segments."""
    came = []
    with hearing.client as client, client.stream("POST", "/transcribe", json={"path": str(AUDIO / "long-90s.ogg")}) as answer:
        for line in answer.iter_lines():
            came.append((json.loads(line)["event"], time.monotonic()))
    kinds = [kind for kind, _ in came]
    assert kinds == ["info", *["segment", "progress"] * 3, "done"]
    times = [when for kind, when in came if kind in ("segment", "done")]
    assert times[-1] - times[0] > 0.05


def test_silence_is_left_out_and_texts_keep_their_times(hearing, tmp_path):
    """Four minutes of noise between two sentences are not heard at all, and nothing is invented there."""
    path = tmp_path / "far.wav"
    inside("""
import json, wave, numpy as np
rng = np.random.default_rng(1)
def sound(path):
    with wave.open(path) as file:
        return np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16)
noise = rng.normal(0, 30, 16000 * 240).astype(np.int16)
tail = rng.normal(0, 30, 16000 * 40).astype(np.int16)
with wave.open(sys.argv[1], "wb") as out:
    out.setnchannels(1); out.setsampwidth(2); out.setframerate(16000)
    out.writeframes(np.concatenate([sound(sys.argv[2]), noise, sound(sys.argv[3]), tail]).tobytes())
print(json.dumps(None))
""", path, AUDIO / "fox.wav", AUDIO / "thanks.wav")
    heard = hearing.hear(path)
    assert heard.text == f"{EXPECTED['fox.wav']['got_text']} {EXPECTED['thanks.wav']['got_text']}"
    assert abs(heard.segments[1]["start"] - 243.15) < 0.6
    assert heard.segments[1]["end"] < 246.5


def test_a_long_recording_is_heard_in_parts(hearing, long_recording):
    """Ten minutes are cut several times, each time in silence; every sentence is there, at its time."""
    heard = hearing.hear(long_recording, voice_filter="off", beam_size=1, temperatures=[0.0])
    assert heard.info["duration"] == pytest.approx(100 * 6.4194, abs=0.1)
    starts = [segment["start"] for segment in heard.segments]
    assert starts == sorted(starts) and starts[-1] > 630
    progress = [event["progress"] for event in heard.events if event["event"] == "progress"]
    assert progress == sorted(progress) and progress[-1] > 0.98


def test_parts_make_up_the_whole(long_recording):
    """Cut where it is quiet, kept in memory or decoded again: the same samples in the same order."""
    facts = inside("""
import json, numpy as np, asyncio
import speech_decoding as decoding
from speech_jobs import Job
class Quiet:
    def sign(self): pass
whole = np.concatenate(list(decoding._decode(sys.argv[1])))
facts = []
for kept in (3600, 60):
    decoding._KEPT_S = kept
    recording = decoding.Recording.read(sys.argv[1], 0, Quiet())
    parts = list(recording.parts())
    offsets = [offset for offset, _ in parts]
    same = bool(np.array_equal(np.concatenate([sound for _, sound in parts]), whole.astype(np.float32) / 32768))
    at_cuts = [float(np.abs(whole[offset - 4000:offset + 4000].astype(np.float32)).mean()) for offset in offsets[1:]]
    facts.append([recording._kept is not None, same, len(parts), max(len(sound) for _, sound in parts) / 16000, max(at_cuts), recording.samples])
print(json.dumps(facts + [float(np.abs(whole.astype(np.float32)).mean()), len(whole)]))
""", long_recording)
    (kept, same, parts, longest, at_cuts, samples), again, loudness, whole = facts
    assert kept and same and samples == whole
    assert 3 <= parts <= 4 and longest <= 220
    assert at_cuts < loudness / 10
    assert again == [False, same, parts, longest, at_cuts, samples]


def test_a_model_that_cannot_translate_refuses_to(tmp_path):
    model = tmp_path / "faster-distil-whisper-tiny"
    model.symlink_to(MODEL)
    with engine("--task", "transcribe", "--model", model) as started:
        started.ready()
        assert started.lines[-1]["translates"] is False
        answer = started.post("/transcribe", path=str(AUDIO / "fox.wav"), task="translate")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "model_not_supported")
        assert "whisper-base" in answer.json()["error"]["message"]
        assert started.hear(AUDIO / "fox.wav", task="translate", force=True).last["event"] == "done"


STUB = """
import json
import speech_hearing as hearing
from types import SimpleNamespace as Thing
from speech_jobs import Refused
def model(multilingual=True, mels=80, heads=((1, 0),)):
    return Thing(model=Thing(is_multilingual=multilingual, n_mels=mels), supported_languages=["en"] if not multilingual else ["en", "de"], alignment_heads=heads)
def loaded(name="x", **facts):
    return hearing.Hearing(model(**facts), name, "cpu", "int8", 5, 8)
def refused(of, **asked):
    try:
        of.check(hearing.Request(path="x", **asked))
    except Refused as refused:
        return [refused.status, refused.code, refused.message]
"""


def test_silence_at_the_beginning_does_not_end_a_recording(tmp_path):
    """The first part has nothing in it; the second one is heard."""
    write_wav(tmp_path / "late.wav", 230)
    with wave.open(str(tmp_path / "late.wav")) as file:
        frames = file.readframes(file.getnframes())
    with wave.open(str(AUDIO / "fox.wav")) as file, wave.open(str(tmp_path / "late.wav"), "wb") as out:
        out.setparams(file.getparams())
        out.writeframes(frames + file.readframes(file.getnframes()))
    found = inside("""
import json, speech_hearing as hearing, speech_decoding as decoding
class Job:
    def sign(self): pass
recording = decoding.Recording.read(sys.argv[1], 0, Job())
print(json.dumps([[[each.begin / 16000, (each.begin + len(each.sound)) / 16000] for each in hearing._stretches(recording, filtered, {}, Job())] for filtered in (False, True)]))
""", tmp_path / "late.wav")
    (plain,), (filtered,) = found
    assert 140 <= plain[0] <= 180 and plain[1] == pytest.approx(233.15, abs=0.01)
    assert 229 <= filtered[0] <= 230.2 and filtered[1] == plain[1]


def test_text_that_lies_in_silence_is_dropped():
    """Whisper invents text for noise: it is kept off by where there is speech, within a window and after it."""
    heard = inside("""
import json, numpy as np
import speech_hearing as hearing
from types import SimpleNamespace as Thing
said = [(0.0, 3.0, "one"), (6.0, 9.0, "invented"), (11.0, 14.0, "two"), (16.0, 20.0, "invented"), (21.0, 22.0, "never asked for")]
asked = []
def transcribe(sound, initial_prompt, **options):
    asked.append(initial_prompt)
    def segments():
        for start, end, text in said:
            yield Thing(start=start, end=end, text=text, tokens=[len(text)], temperature=0.0, seek=0, avg_logprob=float("nan"), compression_ratio=1.0, no_speech_prob=0.0)
            last.append(text)
    return segments(), None
last = []
model = Thing(model=Thing(is_multilingual=True, n_mels=80), supported_languages=["en"], transcribe=transcribe)
loaded = hearing.Hearing(model, "x", "cpu", "int8", 5, 8)
class Job:
    def window(self): pass
request = hearing.Request(path="x")
speech = ((0.5, 3.5), (10.5, 15.0))
stretches = [hearing._Stretch(16000 * 60 * n, np.zeros(16000 * 30, dtype=np.float32), speech if n < 2 else None) for n in range(3)]
texts = [[each["start"], each["text"], each["seek"], each["avg_logprob"]] for each in loaded._hear_in_order(stretches[0], iter(stretches[1:]), "en", request, Job())]
print(json.dumps([texts, asked, last]))
""")
    texts, prompts, run = heard
    assert texts[:4] == [[0.0, "one", 0, 0.0], [11.0, "two", 0, 0.0], [60.0, "one", 6000, 0.0], [71.0, "two", 6000, 0.0]]
    # Where silence was not looked for, all is kept.
    assert [text for _, text, _, _ in texts[4:]] == ["one", "invented", "two", "invented", "never asked for"]
    # What was invented is no prompt for what comes, and nothing is heard beyond the last speech.
    assert prompts == [None, [3, 3], [3, 3, 3, 3]]
    assert run[:3] == ["one", "invented", "two"] and run.count("never asked for") == 1


def test_english_only_models():
    answers = inside(STUB + """
english = loaded(multilingual=False)
print(json.dumps([refused(english), refused(english, language="en"), refused(english, language="de"), refused(english, languages=("de",)), refused(english, translate=True)]))
""")
    assert answers[:2] == [None, None]
    assert answers[2] == [400, "unsupported_language", "This model understands English only, not 'de'."]
    assert answers[3][1] == "unsupported_language"
    assert answers[4][:2] == [400, "model_not_supported"]


def test_which_models_translate():
    large, turbo = [[7, 0], [25, 6]], [[2, 4], [3, 11]]
    answers = inside(STUB + f"""
print(json.dumps([
    loaded("tiny").translates, loaded("faster-whisper-large-v3", mels=128, heads={large}).translates,
    loaded("my-folder", mels=128, heads={turbo}).translates, loaded("faster-whisper-large-v3-turbo", mels=128, heads={large}).translates,
    loaded("faster-distil-whisper-large-v2").translates, loaded("tiny.en", multilingual=False).translates,
]))
""")
    assert answers == [True, True, False, False, False, False]


def test_a_gpu_hears_long_recordings_in_batches():
    """The pipeline works on the CPU, too; only the choice depends on the GPU."""
    text = inside("""
import json
from pathlib import Path
import speech_hearing as hearing, speech_loading as loading
loading.emit = lambda *_, **__: None
loaded = loading.load(Path(sys.argv[1]), "cpu", "auto", 2, 5, 8)
class Job:
    made = []
    def sign(self): pass
    window = sign
    def put(self, event): self.made.append(event)
loaded.device = "cuda"
calls = []
usual = loaded._hear_batched
loaded._hear_batched = lambda *arguments: calls.append(1) or usual(*arguments)
for batched in (True, False):
    loaded.hear(hearing.Request(path=sys.argv[2], batched=batched), Job())
print(json.dumps([len(calls), Job.made]))
""", MODEL, AUDIO / "long-90s.ogg")
    calls, events = text
    assert calls == 1
    ends = [number for number, event in enumerate(events) if event["event"] == "done"]
    first = [event for event in events[: ends[0]] if event["event"] == "segment"]
    assert len(ends) == 2 and first and [segment["id"] for segment in first] == list(range(len(first)))
    assert first[0]["text"].strip() == EXPECTED["long-90s.ogg"]["segments"][0]["text"]
