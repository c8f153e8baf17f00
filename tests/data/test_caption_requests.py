"""Captions from a language model: a stub server that fails midway, answers on the disk, files as users write them."""

import csv
import http.server
import json
import threading

import pytest

from ranjax.cli import captions_command, console
from ranjax.core.errors import ConfigError, DataError
from ranjax.data import noisy_pairs
from ranjax.data.captions import caption_file
from ranjax.data.captions import caption_requests as requests
from ranjax.data.captions.rewrite import Change
from ranjax.data.prepared import open_prepared
from ranjax.data.radiograph_set import prepare_radiographs
from ranjax.data.set_settings import RadiographSettings


class Stub:
    """A server that answers with the caption in capitals, and fails as it is told."""

    def __init__(self):
        self.asked, self.fail_after, self.passing, self.status, self.key = [], None, [], 503, None
        stub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stub.key = self.headers.get("Authorization")
                text = body["messages"][0]["content"].rpartition("Caption: ")[2]
                if stub.passing or (stub.fail_after is not None and len(stub.asked) >= stub.fail_after):
                    status = stub.passing.pop() if stub.passing else stub.status
                    self.send_response(status)
                    self.end_headers()
                    return
                stub.asked.append(text)
                content = json.dumps({"choices": [{"message": {"content": f'"{text.upper()}"\n'}}]}).encode()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def stub():
    made = Stub()
    yield made
    made.server.shutdown()
    made.thread.join()
    made.server.server_close()


CAPTIONS = {
    f"pair {i}": f"A {word} left effusion." for i, word in enumerate(("small", "large", "tiny", "small", "big"))
}


def endpoint(stub, **how):
    return requests.Endpoint(stub.url, "model", **{"retries": 2, "wait": 0.001, **how})


def test_each_caption_is_asked_for_once_and_kept_at_once(stub, tmp_path):
    answers, prompt = requests.Answers(tmp_path / "a.jsonl"), requests.read_prompt(None)
    cost = requests.estimate(endpoint(stub), prompt, CAPTIONS, answers)
    assert cost.requests == 4  # two captions are the same
    assert cost.tokens_out > cost.tokens_back > 0
    found = requests.ask_all(endpoint(stub), prompt, CAPTIONS, answers, parallel=3)
    assert found == {identity: caption.upper() for identity, caption in CAPTIONS.items()}
    assert sorted(stub.asked) == sorted(set(CAPTIONS.values()))
    again = requests.Answers(tmp_path / "a.jsonl")
    assert requests.estimate(endpoint(stub), prompt, CAPTIONS, again).requests == 0
    assert requests.ask_all(endpoint(stub), prompt, CAPTIONS, again) == found
    assert len(stub.asked) == 4
    # Another model or prompt is another question.
    assert requests.estimate(requests.Endpoint(stub.url, "other"), prompt, CAPTIONS, again).requests == 4


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_server_that_fails_midway_loses_nothing_and_the_rest_is_asked_later(stub, tmp_path, parallel):
    prompt, path = requests.read_prompt(None), tmp_path / "a.jsonl"
    stub.fail_after = 2
    with pytest.raises(DataError, match=r"answers 503 .*3 times. [23] of 5 answers are kept; the same command goes on"):
        requests.ask_all(endpoint(stub), prompt, CAPTIONS, requests.Answers(path), parallel)
    assert len(path.read_text().splitlines()) == len(stub.asked) == 2
    # A power cut in the middle of a line.
    path.write_bytes(path.read_bytes() + b'{"key": "ab')
    stub.fail_after = None
    found = requests.ask_all(endpoint(stub), prompt, CAPTIONS, requests.Answers(path), parallel)
    assert found == {identity: caption.upper() for identity, caption in CAPTIONS.items()}
    assert len(stub.asked) == 4
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_what_fails_in_passing_is_tried_again_and_a_refusal_is_not(stub, tmp_path, monkeypatch):
    monkeypatch.setenv(requests.KEY, "secret")
    stub.passing = [429, 500]
    assert requests.ask(endpoint(stub), "Caption: x") == "X"
    assert stub.key == "Bearer secret"
    stub.fail_after, stub.status = 0, 401
    with pytest.raises(DataError, match=r"answers 401 \(Unauthorized\)"):
        requests.ask(endpoint(stub), "Caption: x")
    stub.server.shutdown()
    stub.server.server_close()
    with pytest.raises(DataError, match=r"does not answer: .* 3 times"):
        requests.ask(endpoint(stub), "Caption: x")


def test_a_stop_keeps_what_is_there(stub, tmp_path):
    answers = requests.Answers(tmp_path / "a.jsonl")
    found = requests.ask_all(
        endpoint(stub), requests.read_prompt(None), CAPTIONS, answers, stop=lambda: len(stub.asked) >= 2
    )
    assert 2 <= len(found) < 5
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 2


def test_an_address_or_a_prompt_that_cannot_be_used_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--endpoint = 'localhost:8000': expected an address such as"):
        requests.Endpoint("localhost:8000", "model")
    (tmp_path / "prompt.txt").write_text("Rewrite it.")
    with pytest.raises(ConfigError, match=r"--prompt = .*expected a text with \{caption\}"):
        requests.read_prompt(tmp_path / "prompt.txt")
    (tmp_path / "a.jsonl").write_text("no answer\n")
    with pytest.raises(DataError, match=r"line 1 of .* is no answer"):
        requests.Answers(tmp_path / "a.jsonl")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    sizes = {"train": 10, "adapt": 1, "validation": 1, "test": 1, "ood_test": 1}
    prepare_radiographs(RadiographSettings(image_size=16, **sizes), folder)
    return folder


def command(stub, prepared, out, *more):
    words = [f"--endpoint={stub.url}", "--model=m", f"--data={prepared}", f"--out={out}", "--retries=0", *more]
    return console.call(["captions", *words])


def test_the_command_sends_nothing_without_consent_and_names_where_texts_go(stub, prepared, tmp_path, capsys):
    assert command(stub, prepared, tmp_path / "out.csv") == 2
    said = capsys.readouterr()
    assert "WARNING: these captions leave this machine and go to 127.0.0.1" in said.out
    assert "10 requests" in said.out
    assert "--yes" in said.err
    assert stub.asked == []
    assert list(tmp_path.iterdir()) == []


def test_the_command_goes_on_where_the_server_failed_and_writes_the_file_last(stub, prepared, tmp_path, capsys):
    out = tmp_path / "out.csv"
    stub.fail_after = 4
    assert command(stub, prepared, out, "--yes") == 2
    assert "4 of 10 answers are kept" in capsys.readouterr().err
    assert not out.exists()
    stub.fail_after = None
    assert command(stub, prepared, out, "--yes", "--price=1,2") == 0
    said = capsys.readouterr().out
    assert "10 captions, 4 answered before; 6 requests" in said
    assert "10 say" in said  # capitals alone are the same words
    train = open_prepared(prepared).splits["train"]
    with out.open(newline="") as file:
        rows = list(csv.reader(file))
    expected = [[i, text.upper()] for i, text in zip(train.ids, train.column("report"))]
    assert rows == [["id", "caption"], *expected]
    assert len(stub.asked) == 10
    assert command(stub, prepared, out, "--yes") == 0
    assert len(stub.asked) == 10


def test_a_share_asks_for_just_the_captions_that_a_run_makes_noisy(stub, prepared, tmp_path):
    assert command(stub, prepared, tmp_path / "out.csv", "--yes", "--ratio=0.3", "--seed=5") == 0
    train = open_prepared(prepared).splits["train"]
    chosen = noisy_pairs.select(train.ids, 0.3, 5)
    assert sorted(stub.asked) == sorted(text for text, taken in zip(train.column("report"), chosen) if taken)
    assert captions_command.__doc__.startswith("Ask a language model")


def test_captions_of_a_file_are_taken_by_id_and_those_that_cannot_be_have_a_reason(tmp_path):
    path = tmp_path / "captions.csv"
    path.write_text('id,caption\na,"No effusion, left."\nb,A SMALL effusion!\nd,x\n', encoding="utf-8-sig")
    write = caption_file.FileCaptions(caption_file.read_captions(path))
    found = write("a", "Large effusion, left.", None)
    assert found.rewrites[0].text == "No effusion, left."
    assert found.rewrites[0].changes == (Change("words", "large", "no"),)
    assert write("b", "A small effusion.", None) == ([], caption_file.IDENTICAL)
    assert write("c", "Anything.", None) == ([], caption_file.ABSENT)
    assert write.unknown(["a", "b", "c"]) == ["d"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,caption\na,x\na,y\n", "line 3 of .*: the id 'a' is given twice"),
        ("id,caption\na,\n", "line 2 of .* has no caption"),
        ("id,caption\n,x\n", "line 2 of .* has no id"),
        ("id,caption\na,x,y\n", "line 2 of .* has more fields than names"),
        ("name,caption\na,x\n", "must have one column 'id'"),
        ("id,caption\n", "has no lines"),
        (b"id,caption\na,\xff\n", "is no CSV in UTF-8"),
    ],
)
def test_a_file_of_captions_that_is_wrong_is_refused_by_its_line(text, words, tmp_path):
    path = tmp_path / "captions.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=words):
        caption_file.read_captions(path)
    with pytest.raises(ConfigError, match=r"noise.captions.file = .*expected a CSV"):
        caption_file.read_captions(tmp_path / "none.csv")
