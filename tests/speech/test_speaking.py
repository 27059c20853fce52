"""What is spoken: voices, formats, and sound that leaves as it is made."""
import json
import os
import pathlib
import shutil
import struct
import time

import pytest

from conftest import PROGRAM, engine, inside, speech_python

SENTENCES = ["Hello, this is a test.", "The quick brown fox jumps over the lazy dog.", "How are you today?"]
TYPES = {"mp3": "audio/mpeg", "opus": "audio/ogg", "aac": "audio/aac", "flac": "audio/flac", "wav": "audio/wav", "pcm": "audio/pcm"}
OPENAI = ["alloy", "ash", "ballad", "coral", "echo", "fable", "onyx", "nova", "sage", "shimmer", "verse", "marin", "cedar"]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """espeak-ng out of the environment: no program is on the path."""
    with engine("--task", "speak", "--model", "espeak-ng", env={"PATH": str(tmp_path_factory.mktemp("nothing"))}) as started:
        yield started.ready()


@pytest.fixture(scope="session", params=["wheel", "program"])
def espeak(request, wheel):
    """Both ways to have espeak-ng."""
    if request.param == "wheel":
        yield wheel
    elif not shutil.which("espeak-ng"):
        pytest.skip("no espeak-ng on the path")
    else:
        with engine("--task", "speak", "--model", "espeak-ng") as started:
            yield started.ready()


def speak(started, **changes):
    return started.post("/speak", **{"sentences": SENTENCES, "voice": "alloy", "speed": 1.0, "format": "pcm", **changes})


def seconds_of(answer):
    """Length of raw sound."""
    assert answer.status_code == 200, answer.text
    return len(answer.content) / 2 / 24000


@pytest.mark.parametrize("form", TYPES)
def test_every_format_can_be_read_back(espeak, tmp_path, form):
    answer = speak(espeak, format=form)
    assert answer.status_code == 200 and answer.headers["content-type"] == TYPES[form]
    assert "content-length" not in answer.headers
    seconds = seconds_of(speak(espeak))
    assert 5 < seconds < 9
    if form == "pcm":
        return
    if form == "wav":
        assert struct.unpack_from("<I", answer.content, 4) == struct.unpack_from("<I", answer.content, 40) == (0xFFFFFFFF,)
        assert answer.content[44:] == speak(espeak).content
    path = tmp_path / "sound"
    path.write_bytes(answer.content)
    name, codec, rate, channels, length, loudest = inside("""
import json, av, numpy as np
with av.open(open(sys.argv[1], "rb")) as container:
    stream = container.streams.audio[0]
    frames = [frame.to_ndarray().astype(np.float64) / (32768 if frame.format.name.startswith("s16") else 1) for frame in container.decode(audio=0)]
    samples = sum(frame.shape[-1] for frame in frames)
    print(json.dumps([container.format.name, stream.codec_context.name, stream.rate, stream.codec_context.channels, samples / stream.rate, max(float(np.abs(each).max()) for each in frames)]))
""", path)
    assert name == {"opus": "ogg"}.get(form, form)
    assert codec.startswith({"mp3": "mp3", "opus": "opus", "aac": "aac", "flac": "flac", "wav": "pcm_s16le"}[form])
    assert rate == (48000 if form == "opus" else 24000) and channels == 1
    assert abs(length - seconds) < 0.15
    assert 0.05 < loudest


def test_the_first_sound_leaves_before_the_last_sentence_is_made(wheel):
    for form in TYPES:
        with wheel.client as client, client.stream("POST", "/speak", json={"sentences": SENTENCES * 200, "voice": "alloy", "speed": 4.0, "format": form}) as answer:
            chunks = answer.iter_raw()
            assert next(chunks)
            assert wheel.stats()["running"] is True
        wheel.wait_for("nobody is spoken to any more", running=False)


def test_voices(espeak):
    voices = espeak.get("/voices").json()["voices"]
    assert len(voices) > 100
    german = next(voice for voice in voices if voice["id"] == "de")
    assert german == {"id": "de", "name": "German", "language": "de", "gender": "male"}
    made = [speak(espeak, sentences=["Hello."], voice=voice) for voice in OPENAI]
    assert all(seconds_of(answer) > 0.3 for answer in made)
    assert len({answer.content for answer in made}) == len(OPENAI)
    for voice in ("de", "German", "en", "EN-US", "en-us+f3", "fr", "fr-fr+m1", "zh"):
        assert seconds_of(speak(espeak, sentences=["Hello."], voice=voice)) > 0.3
    for voice in ("nobody", "en-us+nobody", "../../etc/passwd", "--help", "-v", "en-us+../f1", "+f1"):
        answer = speak(espeak, voice=voice)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "voice_not_found")
        assert "alloy" in answer.json()["error"]["message"]


def test_speed(espeak):
    slow, usual, fast = (seconds_of(speak(espeak, speed=speed)) for speed in (0.25, 1.0, 4.0))
    # espeak-ng goes from 80 to 450 words a minute.
    assert slow > usual * 1.6 and fast < usual * 0.6


@pytest.mark.parametrize("change", [
    {"sentences": []}, {"sentences": ["  ", "\n"]}, {"format": "midi"}, {"speed": 0}, {"speed": 5}, {"speed": "fast"}, {"sentences": None},
])
def test_a_request_that_makes_no_sense_is_refused(wheel, change):
    answer = speak(wheel, **change)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")


def test_any_text_can_be_spoken(wheel):
    text = ["-v --help $(id) `id`; \"quotes\" 'n' <speak>&amp;</speak> [[h@lou]] \\ %s", "漢字かな交じり文 🎉 \u0000 end", "…"]
    assert seconds_of(speak(wheel, sentences=text)) > 1
    # It cannot transcribe.
    assert wheel.post("/transcribe", path="x").json()["error"]["code"] == "model_not_supported"


def fake_espeak(folder, body):
    """An `espeak-ng` that writes down how it was called."""
    program = folder / "espeak-ng"
    program.write_text(f"""#!/bin/sh
echo "$@" >> {folder}/calls
case "$1" in --voices*) exec {speech_python()} -I {PROGRAM}/speech_espeak.py "$@";; esac
{body}
""")
    program.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def test_the_text_is_on_no_command_line(tmp_path):
    env = fake_espeak(tmp_path, f'exec {speech_python()} -I {PROGRAM}/speech_espeak.py "$@"')
    with engine("--task", "speak", "--model", "espeak-ng", env=env) as started:
        started.ready()
        assert seconds_of(speak(started, sentences=["A very secret sentence."], voice="nova", speed=2.0)) > 0.5
    calls = (tmp_path / "calls").read_text()
    assert "secret" not in calls
    assert "--stdin --stdout -b 1 -v gmw/en-US+f3 -s 350" in calls


@pytest.mark.parametrize("form", TYPES)
def test_a_sentence_is_sent_when_it_is_made(tmp_path, form):
    """The second sentence takes for ever; the first one's sound is there, but for what a frame still gathers."""
    env = fake_espeak(tmp_path, f'''
[ $(grep -c stdin {tmp_path}/calls) -gt 1 ] && exec sleep 100
exec {speech_python()} -I {PROGRAM}/speech_espeak.py "$@"''')
    body = {"sentences": ["Hello, this is a test."] * 2, "voice": "alloy", "format": form}
    with engine("--task", "speak", "--model", "espeak-ng", env=env) as started:
        started.ready()
        received = 0
        with started.client as client, client.stream("POST", "/speak", json=body) as answer:
            chunks = answer.iter_raw()
            # Nearly two seconds of sound.
            while received < {"mp3": 15_000, "opus": 6_000, "aac": 12_000, "flac": 30_000, "wav": 70_000, "pcm": 70_000}[form]:
                received += len(next(chunks))
            assert started.stats()["running"] is True


def children(process):
    found = []
    for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
        found += (task / "children").read_text().split()
    return found


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="needs /proc")
def test_a_client_that_leaves_ends_the_voice_program(tmp_path):
    with engine("--task", "speak", "--model", "espeak-ng", env=fake_espeak(tmp_path, "exec sleep 100")) as started:
        started.ready()
        with started.client as client:
            client.timeout = 1.0
            with pytest.raises(Exception):
                client.post("/speak", json={"sentences": SENTENCES, "voice": "alloy", "format": "mp3"})
        started.wait_for("the job has ended", running=False, cancelled=1)
        assert children(started.process) == []


def test_a_voice_program_that_fails_is_told(tmp_path):
    with engine("--task", "speak", "--model", "espeak-ng", env=fake_espeak(tmp_path, "echo broken >&2; exit 7")) as started:
        started.ready()
        answer = speak(started)
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "engine_failed")
        assert "broken" in answer.json()["error"]["message"]
        assert started.get("/health").status_code == 200


STUBS = """
import json, types
from pathlib import Path
import numpy as np
class Job:
    def sign(self): pass
calls = []
class Model:
    def __init__(self, *arguments): calls.append([Path(each).name for each in arguments])
    def get_voices(self): return ["af_alloy", "bm_fable", "jf_alpha"]
    def create(self, text, voice, speed, lang):
        calls.append([text, voice, speed, lang])
        return np.full(2400, 2.0, dtype=np.float32), 24000
sys.modules["kokoro_onnx"] = types.SimpleNamespace(Kokoro=Model)
class Chunk:
    sample_rate = 22050
    audio_int16_bytes = b"\\1\\0" * 2205
class PiperModel:
    config = types.SimpleNamespace(length_scale=1.2)
    @staticmethod
    def load(path, use_cuda): calls.append([Path(path).name, use_cuda]); return PiperModel()
    def synthesize(self, text, config): calls.append([text, config.length_scale]); yield Chunk(); yield Chunk()
sys.modules["piper"] = types.SimpleNamespace(PiperVoice=PiperModel, SynthesisConfig=lambda length_scale: types.SimpleNamespace(length_scale=length_scale))
import speech_voices as voices
engine = voices.open_engine(sys.argv[1], "cpu")
"""


def test_kokoro(tmp_path):
    """The package's place is taken by a stub: the model is no test material."""
    for name in ("kokoro-v1.0.onnx", "voices-v1.0.bin"):
        (tmp_path / name).touch()
    facts = inside(STUBS + """
sounds = list(engine.say("Hello.", "bm_fable", 4.0, Job())) + list(engine.say("…", "bm_fable", 1.0, Job()))
print(json.dumps([engine.backend, [engine.voice(each) for each in ("alloy", "fable", "nova", "AF_Alloy", "nobody")],
    [[v.id, v.name, v.language, v.gender] for v in engine.voices()], calls, [[s.rate, len(s.samples), int(s.samples.max())] for s in sounds]]))
""", tmp_path)
    assert facts == [
        "kokoro", ["af_alloy", "bm_fable", "bm_fable", "af_alloy", None],
        [["af_alloy", "Alloy", "en-us", "female"], ["bm_fable", "Fable", "en-gb", "male"], ["jf_alpha", "Alpha", "ja", "female"]],
        [["kokoro-v1.0.onnx", "voices-v1.0.bin"], ["Hello.", "bm_fable", 2.0, "en-gb"]], [[24000, 8400, 32767]],
    ]


def test_piper(tmp_path):
    for name in ("de_DE-thorsten-medium", "en_US-lessac-medium"):
        (tmp_path / f"{name}.onnx").touch()
        (tmp_path / f"{name}.onnx.json").touch()
    (tmp_path / "fr_FR-half.onnx.json").touch()
    facts = inside(STUBS + """
sounds = list(engine.say("Hello.", "en_US-lessac-medium", 2.0, Job())) + list(engine.say("You.", "en_US-lessac-medium", 1.0, Job()))
print(json.dumps([engine.backend, [engine.voice(each) for each in ("alloy", "de_de-thorsten-medium", "nobody")],
    [[v.id, v.language] for v in engine.voices()], calls, [[s.rate, len(s.samples)] for s in sounds]]))
""", tmp_path)
    assert facts == [
        "piper", ["en_US-lessac-medium", "de_DE-thorsten-medium", None],
        [["de_DE-thorsten-medium", "de-DE"], ["en_US-lessac-medium", "en-US"]],
        [["en_US-lessac-medium.onnx", False], ["Hello.", 0.6], ["You.", 1.2]], [[22050, 2205]] * 4,
    ]


def test_packages_that_are_not_installed_are_named(tmp_path):
    (tmp_path / "a-b.onnx.json").touch()
    (tmp_path / "a-b.onnx").touch()
    with engine("--task", "speak", "--model", tmp_path) as started:
        line = started.until("load_failed")
        if line is None:
            pytest.skip("this environment has Piper")
        assert "Piper is not installed" in line["error"]
        assert started.process.wait(10) == 3
