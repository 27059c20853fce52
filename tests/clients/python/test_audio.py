"""Speech in both directions with OpenAI's own client: real faster-whisper with a tiny model, real espeak-ng."""
import concurrent.futures
import json
import os
import pathlib
import signal
import time
import wave

import httpx
import lmstudio
import ollama
import openai
import pytest

from conftest import FIXTURES

MODEL = "tiny-whisper"
AUDIO = FIXTURES / "audio"
EXPECTED = json.loads((AUDIO / "expected.json").read_text())
HELLO = EXPECTED["hello.mp3"]
PORTS = ["ollama", "lmstudio", "management"]

pytestmark = pytest.mark.usefixtures("speech")


def client_of(runner, port="lmstudio"):
    return openai.OpenAI(base_url=f"{getattr(runner, port)}/v1", api_key="none", max_retries=0, timeout=120)


@pytest.fixture
def client(runner):
    return client_of(runner)


def recording(name):
    return (name, (AUDIO / name).read_bytes())


def state(runner):
    return httpx.get(f"{runner.management}/v1/state").json()


def until(probe, what, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def long_recording(tmp_path_factory):
    """A quarter of an hour: hearing it takes long enough to be broken off."""
    path = tmp_path_factory.mktemp("audio") / "long.wav"
    with wave.open(str(AUDIO / "two-sentences.wav")) as source, wave.open(str(path), "wb") as out:
        out.setparams(source.getparams())
        frames = source.readframes(source.getnframes())
        for _ in range(900 * source.getframerate() // source.getnframes()):
            out.writeframes(frames)
    return path


# What is heard.

@pytest.mark.parametrize("port", PORTS)
def test_every_port_hears_and_speaks(runner, port):
    client = client_of(runner, port)
    heard = client.audio.transcriptions.create(model=MODEL, file=recording("hello.mp3"))
    assert heard.text == HELLO["got_text"]
    said = client.audio.speech.create(model="tts-1", voice="alloy", input="Hello.", response_format="wav")
    assert said.content.startswith(b"RIFF")
    assert any(model.id.startswith(MODEL) for model in client.models.list())


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_recording_is_heard_exactly(client, name):
    wanted = EXPECTED[name]
    assert wanted["exact"]
    heard = client.audio.transcriptions.create(model=MODEL, file=recording(name), extra_body={"vad_filter": "false"})
    assert heard.text == wanted["got_text"]
    more = heard.model_extra
    assert more["duration"] == pytest.approx(wanted["duration"], abs=0.05)
    assert [segment["text"] for segment in more["segments"]] == [segment["text"] for segment in wanted["segments"]]
    for got, segment in zip(more["segments"], wanted["segments"]):
        assert (got["start"], got["end"]) == pytest.approx((segment["start"], segment["end"]), abs=0.05)
    if wanted["language"]:
        assert more["language"] == wanted["language"]


@pytest.mark.parametrize("name", sorted(name for name, facts in EXPECTED.items() if facts["translation_exact"]))
def test_every_recording_is_translated(client, name):
    heard = client.audio.translations.create(model=MODEL, file=recording(name), extra_body={"vad_filter": "false"})
    assert heard.text == EXPECTED[name]["got_translation"]
    assert heard.model_extra["language"] == "en"


def test_a_translation_in_every_format(client):
    def ask(form):
        return client.audio.translations.create(model=MODEL, file=recording("german-service.wav"), response_format=form)

    english = EXPECTED["german-service.wav"]["got_translation"]
    verbose = ask("verbose_json")
    assert (verbose.text, verbose.language) == (english, "english")
    assert verbose.model_extra["source_language"] in ("de", "german")
    assert ask("text") == english + "\n"
    assert ask("srt").startswith("1\n00:00:00,000 --> 00:00:0") and english in ask("srt")
    assert ask("vtt").startswith("WEBVTT\n\n00:00:00.000 --> 00:00:0") and english in ask("vtt")


def test_every_format(client):
    def ask(form, **more):
        return client.audio.transcriptions.create(model=MODEL, file=recording("hello.mp3"), response_format=form, **more)

    first, second = HELLO["segments"]
    plain = ask("json")
    assert plain.text == HELLO["got_text"]
    assert plain.usage.type == "duration" and plain.usage.seconds == 4
    assert ask("text") == HELLO["got_text"] + "\n"
    assert ask("srt") == (f"1\n00:00:00,000 --> 00:00:01,520\n{first['text']}\n\n"
                          f"2\n00:00:01,520 --> 00:00:03,160\n{second['text']}\n\n")
    assert ask("vtt") == (f"WEBVTT\n\n00:00:00.000 --> 00:00:01.520\n{first['text']}\n\n"
                          f"00:00:01.520 --> 00:00:03.160\n{second['text']}\n\n")

    verbose = ask("verbose_json")
    assert (verbose.text, verbose.language) == (HELLO["got_text"], "english")
    assert verbose.duration == pytest.approx(HELLO["duration"], abs=0.05)
    assert [(s.id, s.text) for s in verbose.segments] == [(0, " " + first["text"]), (1, " " + second["text"])]
    assert all(s.tokens and s.avg_logprob <= 0 and 0 <= s.no_speech_prob <= 1 for s in verbose.segments)
    assert verbose.words is None


def test_words_have_times(client):
    def ask(*units):
        return client.audio.transcriptions.create(model=MODEL, file=recording("hello.mp3"), response_format="verbose_json",
                                                  timestamp_granularities=list(units))

    both = ask("word", "segment")
    assert " ".join(word.word for word in both.words) == HELLO["got_text"]
    times = [time for word in both.words for time in (word.start, word.end)]
    assert times == sorted(times) and times[-1] <= HELLO["duration"] + 0.05
    assert len(both.segments) == 2
    alone = ask("word")
    assert len(alone.words) == len(both.words) and alone.segments is None


def test_wishes_reach_the_engine(client):
    def ask(**more):
        return client.audio.transcriptions.create(model=MODEL, file=recording("hello.mp3"), **more).text

    for more in ({"language": "en"}, {"language": "English"}, {"language": "en-US"}, {"temperature": 0.0},
                 {"prompt": "LlamaRunner, transcription."}, {"chunking_strategy": "auto"}, {"include": ["logprobs"]}):
        assert ask(**more) == HELLO["got_text"], more
    assert ask(extra_body={"beam_size": "1", "word_timestamps": "yes", "unknown": "x"}) == HELLO["got_text"]
    # The tiny model is led astray by words to expect: they reach it.
    fox = client.audio.transcriptions.create(model=MODEL, file=recording("fox.wav"), extra_body={"hotwords": "service"})
    assert fox.text != EXPECTED["fox.wav"]["got_text"]


def test_without_a_default_the_model_that_is_there_is_used(runner, client):
    assert client.audio.transcriptions.create(model="whisper-1", file=recording("fox.wav")).text == EXPECTED["fox.wav"]["got_text"]
    nameless = httpx.post(f"{runner.ollama}/v1/audio/transcriptions", files={"file": recording("fox.wav")}, timeout=60)
    assert nameless.json()["text"] == EXPECTED["fox.wav"]["got_text"]
    assert runner.command("transcribe", str(AUDIO / "fox.wav")).stdout == EXPECTED["fox.wav"]["got_text"] + "\n"


@pytest.mark.parametrize("name", ["whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"])
def test_names_of_openai_mean_the_default_model(start, name):
    server = start(config={"audio": {"default_model": MODEL}})
    heard = client_of(server).audio.transcriptions.create(model=name, file=recording("fox.wav"))
    assert heard.text == EXPECTED["fox.wav"]["got_text"]


# Streams.

def test_a_long_recording_is_streamed_piece_by_piece(runner, client):
    wanted = EXPECTED["long-90s.ogg"]
    stream = client.audio.transcriptions.create(model=MODEL, file=recording("long-90s.ogg"), stream=True,
                                                extra_body={"vad_filter": "false"})
    events, running = [], []
    for event in stream:
        events.append(event)
        if len(events) == 1:
            # The work goes on while the first words are here.
            running = state(runner)["requests"]
    kinds = [event.type for event in events]
    assert kinds == ["transcript.text.delta"] * len(wanted["segments"]) + ["transcript.text.done"]
    assert running, "the first piece came only when all of it had been heard"
    *deltas, done = events
    assert "".join(event.delta for event in deltas).strip() == done.text == wanted["got_text"]
    progress = [event.model_extra["progress"] for event in deltas]
    assert progress == sorted(progress) and 0 < progress[0] < 0.5
    assert [event.model_extra["segment"]["start"] for event in deltas] == pytest.approx([0, 30, 60], abs=0.1)
    assert done.model_extra["language"] == "en" and done.model_extra["duration"] == 90.0


def test_a_stream_of_subtitles_ends_with_the_document(client):
    events = list(client.audio.transcriptions.create(model=MODEL, file=recording("hello.mp3"), response_format="srt", stream=True))
    assert events[-1].text.startswith("1\n00:00:00,000 --> 00:00:01,520\n")


def test_who_leaves_frees_the_engine(runner, client, long_recording):
    with client.audio.transcriptions.create(model=MODEL, file=long_recording, stream=True) as stream:
        next(iter(stream))
    until(lambda: state(runner)["requests"] == [], "the engine is free again")
    assert client.audio.transcriptions.create(model=MODEL, file=recording("fox.wav")).text == EXPECTED["fox.wav"]["got_text"]


def test_many_at_once_each_get_their_own_words(runner):
    names = sorted(name for name in EXPECTED if name not in ("long-90s.ogg", "silence-3s.wav"))[:8]

    def hear(name):
        return client_of(runner).audio.transcriptions.create(model=MODEL, file=recording(name)).text

    with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
        assert list(pool.map(hear, names)) == [EXPECTED[name]["got_text"] for name in names]


# What cannot be heard.

@pytest.mark.parametrize("name, code", [
    ("empty.wav", "empty_file"), ("not-audio.mp3", "unsupported_audio"), ("corrupt.wav", "unsupported_audio"),
    ("video-without-sound.mp4", "no_audio_stream"),
])
@pytest.mark.parametrize("stream", [False, True])
def test_files_without_sound_are_refused(client, name, code, stream):
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.transcriptions.create(model=MODEL, file=recording(name), stream=stream)
    assert caught.value.code == code
    assert caught.value.body["message"]


def test_damaged_and_silent_recordings_give_what_there_is(client, tmp_path):
    assert client.audio.transcriptions.create(model=MODEL, file=recording("truncated.wav")).text == "Hello, this is a test."
    silence = client.audio.transcriptions.create(model=MODEL, file=recording("silence-3s.wav"))
    assert silence.text == "" and silence.model_extra["segments"] == [] and silence.model_extra["duration"] == 3.0
    short = tmp_path / "short.wav"
    with wave.open(str(short), "wb") as out:
        out.setparams((1, 2, 16000, 0, "NONE", ""))
        out.writeframes(bytes(320))
    assert client.audio.transcriptions.create(model=MODEL, file=short).text == ""
    assert client.audio.transcriptions.create(model=MODEL, file=short, response_format="srt") == ""


@pytest.mark.parametrize("wish, code, param", [
    ({"language": "xx"}, "unsupported_language", "language"),
    ({"response_format": "diarized_json"}, "invalid_value", "response_format"),
    ({"response_format": "docx"}, "invalid_value", "response_format"),
    ({"temperature": 2.0}, "invalid_value", "temperature"),
    ({"timestamp_granularities": ["syllable"], "response_format": "verbose_json"}, "invalid_value", "timestamp_granularities"),
    ({"include": ["everything"]}, "invalid_value", "include"),
])
def test_wrong_wishes_are_named(client, wish, code, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.transcriptions.create(model=MODEL, file=recording("fox.wav"), **wish)
    assert caught.value.code == code
    assert (caught.value.param or "").startswith(param)


def test_models_that_cannot_listen(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.audio.transcriptions.create(model="no-such-model", file=recording("fox.wav"))
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.transcriptions.create(model="tiny-chat", file=recording("fox.wav"))
    assert caught.value.code == "model_not_supported" and "speech" in caught.value.body["message"]
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hello"}])


def test_broken_forms(runner):
    url = f"{runner.lmstudio}/v1/audio/transcriptions"
    error = httpx.post(url, data={"model": MODEL}, files={"other": b"x"})
    assert (error.status_code, error.json()["error"]["code"]) == (400, "missing_required_parameter")
    assert error.json()["error"]["param"] == "file"
    error = httpx.post(url, json={"model": MODEL})
    assert error.status_code == 415
    error = httpx.post(url, content=b"nothing of a form", headers={"content-type": "multipart/form-data; boundary=x"})
    assert (error.status_code, error.json()["error"]["code"]) == (400, "invalid_multipart")


def test_a_file_over_the_limit_is_refused(start):
    server = start(config={"audio": {"max_upload_mb": 1}})
    with pytest.raises(openai.APIStatusError) as caught:
        client_of(server).audio.transcriptions.create(model=MODEL, file=("big.wav", bytes(3_000_000)))
    assert (caught.value.status_code, caught.value.code) == (413, "file_too_large")
    assert client_of(server).audio.transcriptions.create(model=MODEL, file=recording("fox.wav")).text == EXPECTED["fox.wav"]["got_text"]
    uploads = pathlib.Path(server.env["XDG_DATA_HOME"]) / "llama-runner" / "uploads"
    assert not uploads.exists() or list(uploads.iterdir()) == []


def test_a_large_recording_does_not_touch_memory(runner):
    def memory(key):
        status = pathlib.Path(f"/proc/{runner.process.pid}/status").read_text()
        return int(status.split(f"{key}:")[1].split()[0]) << 10

    def upload(megabytes):
        form = 'content-disposition: form-data; name="{}"\r\n\r\n'
        yield f"--x\r\n{form.format('model')}{MODEL}\r\n--x\r\n{form.format('file')}".encode()
        for _ in range(megabytes):
            yield bytes(1 << 20)
        yield b"\r\n--x--\r\n"

    def send(megabytes):
        head = {"content-type": "multipart/form-data; boundary=x"}
        return httpx.post(f"{runner.ollama}/v1/audio/transcriptions", content=upload(megabytes), headers=head, timeout=120)

    assert send(1).json()["error"]["code"] == "unsupported_audio", "the engine runs"
    pathlib.Path(f"/proc/{runner.process.pid}/clear_refs").write_text("5")
    before = memory("VmRSS")
    assert send(95).json()["error"]["code"] == "unsupported_audio"
    assert memory("VmHWM") - before < 5 << 20


# When the engine dies.

def engine_pid(server):
    [model] = [model for model in state(server)["models"] if model["key"] == MODEL]
    return (model["instance"] or {}).get("pid")


def test_an_engine_killed_in_a_stream_is_an_error_and_the_next_job_works(start, long_recording):
    server = start()
    client = client_of(server)
    stream = client.audio.transcriptions.create(model=MODEL, file=long_recording, stream=True)
    seen = []
    with pytest.raises(openai.APIError) as caught:
        for event in stream:
            if not seen:
                os.kill(engine_pid(server), signal.SIGKILL)
            seen.append(event.type)
    assert seen and "transcript.text.done" not in seen
    assert caught.value.code == "engine_failed"
    assert client.audio.transcriptions.create(model=MODEL, file=recording("fox.wav")).text == EXPECTED["fox.wav"]["got_text"]


def test_an_engine_killed_before_its_answer_is_asked_again(start, long_recording):
    server = start()
    client = client_of(server)
    client.audio.transcriptions.create(model=MODEL, file=recording("fox.wav"))
    first = engine_pid(server)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.audio.transcriptions.create, model=MODEL, file=long_recording)
        until(lambda: state(server)["requests"], "the job runs")
        os.kill(first, signal.SIGKILL)
        try:
            assert answer.result(120).text.startswith("The quick brown fox")
        except openai.InternalServerError as error:
            # Said, when the answer had begun.
            assert error.status_code == 502 and error.code == "engine_failed"
    assert client.audio.transcriptions.create(model=MODEL, file=recording("fox.wav")).text == EXPECTED["fox.wav"]["got_text"]
    assert engine_pid(server) != first


# What is said.

FIRST_BYTES = {"mp3": (b"ID3", b"\xff\xf3", b"\xff\xfb", b"\xff\xf2"), "opus": (b"OggS",), "aac": (b"\xff\xf1", b"\xff\xf9"), "flac": (b"fLaC",),
               "wav": (b"RIFF",), "pcm": (b"",)}
TYPES = {"mp3": "audio/mpeg", "opus": "audio/ogg", "aac": "audio/aac", "flac": "audio/flac", "wav": "audio/wav", "pcm": "audio/pcm"}


@pytest.mark.parametrize("form", sorted(TYPES))
def test_speech_in_every_format(client, form):
    raw = client.audio.speech.with_raw_response.create(model="tts-1", voice="alloy", input="The quick brown fox jumps over the lazy dog.",
                                                       response_format=form)
    assert raw.headers["content-type"].split(";")[0] == TYPES[form]
    sound = raw.content
    assert sound.startswith(FIRST_BYTES[form]) and len(sound) > 4000
    if form == "pcm":
        assert len(sound) % 2 == 0 and 1.5 < len(sound) / 48000 < 6
    else:
        # It can be decoded: the decoder of the other direction takes it.
        heard = client.audio.transcriptions.create(model=MODEL, file=(f"x.{form}", sound))
        assert 1.5 < heard.model_extra["duration"] < 6


def test_what_is_said_is_heard(client):
    said = client.audio.speech.create(model="tts-1", voice="en-us", input="The quick brown fox jumps over the lazy dog.", response_format="wav")
    assert client.audio.transcriptions.create(model=MODEL, file=("said.wav", said.content)).text == EXPECTED["fox.wav"]["got_text"]


def test_speech_is_streamed(client, tmp_path):
    text = " ".join(f"This is sentence number {n} of a long text that is read aloud." for n in range(40))
    with client.audio.speech.with_streaming_response.create(model="tts-1", voice="nova", input=text, response_format="pcm") as response:
        assert "content-length" not in response.headers
        arrivals = [(time.monotonic(), len(piece)) for piece in response.iter_bytes()]
    assert sum(size for _, size in arrivals) / 48000 > 40
    assert arrivals[0][0] < arrivals[-1][0]
    target = tmp_path / "x.mp3"
    with client.audio.speech.with_streaming_response.create(model="tts-1", voice="nova", input="Hello.") as response:
        response.stream_to_file(target)
    assert target.read_bytes().startswith(FIRST_BYTES["mp3"])


@pytest.mark.parametrize("voice", ["alloy", "ash", "ballad", "coral", "echo", "fable", "onyx", "nova", "sage", "shimmer", "verse", "marin", "cedar"])
def test_voices_of_openai(client, voice):
    assert client.audio.speech.create(model="tts-1", voice=voice, input="Hi.", response_format="wav").content.startswith(b"RIFF")


def test_speed_changes_the_length(client):
    def seconds(speed):
        sound = client.audio.speech.create(model="tts-1-hd", voice="alloy", input="How long does this sentence take to be said?", speed=speed,
                                           response_format="pcm").content
        return len(sound) / 48000

    assert seconds(0.5) > 1.4 * seconds(1) > 1.4 * 1.2 * seconds(2)


@pytest.mark.parametrize("wish, code", [
    ({"voice": "nobody"}, "voice_not_found"), ({"input": "x" * 4097}, "string_above_max_length"), ({"input": " "}, None),
    ({"speed": 9.0}, None), ({"response_format": "midi"}, None),
])
def test_what_cannot_be_said(client, wish, code):
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.speech.create(**{"model": "tts-1", "voice": "alloy", "input": "Hi.", **wish})
    assert code is None or caught.value.code == code


def test_voices_are_listed(runner):
    voices = httpx.get(f"{runner.ollama}/v1/audio/voices").json()
    ids = [voice["id"] for voice in voices["data"]]
    assert "en-us" in ids and len(ids) > 40
    assert voices["object"] == "list" and len(voices["voices"]) == len(ids)
    models = httpx.get(f"{runner.ollama}/v1/audio/models").json()["data"]
    names = [model["id"].removesuffix(":latest") for model in models]
    assert MODEL in names and "tiny-chat" not in names


# Lists of other clients, and the command line.

def test_chat_clients_do_not_meet_the_speech_model(runner):
    names = [model.model for model in ollama.Client(host=runner.ollama).list().models]
    assert names and not any(MODEL in name for name in names)
    with lmstudio.Client(runner.lmstudio.removeprefix("http://")) as client:
        keys = [model.model_key for model in client.list_downloaded_models()]
        assert "tiny-chat" in keys and MODEL not in keys
        assert not any(MODEL in model.identifier for model in client.list_loaded_models())


def test_the_command_line(runner, tmp_path):
    hello, thanks = str(AUDIO / "hello.mp3"), str(AUDIO / "thanks.wav")
    heard = runner.command("transcribe", hello, "--model", MODEL)
    assert (heard.returncode, heard.stdout) == (0, HELLO["got_text"] + "\n"), heard.stderr
    document = json.loads(runner.command("transcribe", hello, thanks, "-m", MODEL, "--json").stdout)["transcriptions"]
    assert [one["text"] for one in document] == [HELLO["got_text"], EXPECTED["thanks.wav"]["got_text"]]
    words = json.loads(runner.command("transcribe", hello, "-m", MODEL, "--words").stdout)
    assert [word["word"] for word in words["words"]][:2] == ["Hello,", "this"]
    streamed = runner.command("transcribe", str(AUDIO / "long-90s.ogg"), "-m", MODEL, "--stream")
    assert streamed.stdout == EXPECTED["long-90s.ogg"]["got_text"] + "\n"
    english = runner.command("transcribe", str(AUDIO / "german-morning.mp3"), "-m", MODEL, "--translate", "-o", str(tmp_path / "x.srt"))
    assert english.returncode == 0 and EXPECTED["german-morning.mp3"]["got_translation"] in (tmp_path / "x.srt").read_text()
    refused = runner.command("transcribe", str(AUDIO / "not-audio.mp3"), "-m", MODEL)
    assert refused.returncode == 1 and refused.stderr.startswith("llama-runner: ")

    said = tmp_path / "said.wav"
    assert runner.command("speak", "The quick brown fox jumps over the lazy dog.", "--voice", "en-us", "-o", str(said)).returncode == 0
    with wave.open(str(said)) as sound:
        assert 1.5 < sound.getnframes() / sound.getframerate() < 6
    assert runner.command("transcribe", str(said), "-m", MODEL).stdout == EXPECTED["fox.wav"]["got_text"] + "\n"
    assert "en-us" in runner.command("speak", "--voices").stdout
