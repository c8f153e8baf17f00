"""Asks an OpenAI-compatible server that the user names to rewrite captions; every answer is on the disk at once.

Answers are kept in a file of one JSON object a line, by the hash of model, prompt and caption: a run that is cut off,
or whose server fails, goes on from there, and nothing is asked twice. Nothing is sent unless this module is called.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from ranjax.core.errors import ConfigError, DataError
from ranjax.data.text.reports import one_line

PLACE = "{caption}"
KEY = "RANJAX_ENDPOINT_KEY"
"""The environment variable with the server's key, where it wants one."""
LETTERS_A_TOKEN = 4
_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Endpoint:
    """A server, and how it is asked.

    Attributes:
      url: up to its version, e.g. "http://localhost:8000/v1".
      model: a name that it knows.
      temperature: of its answers.
      retries: further tries of a request that fails in passing.
      wait: seconds before the first of these; doubled each time.
      timeout: seconds until an answer must be there.

    Raises:
      ConfigError: no address of HTTP.
    """

    url: str
    model: str
    temperature: float = 0.7
    retries: int = 5
    wait: float = 1.0
    timeout: float = 120.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError("--endpoint", self.url, "an address such as http://localhost:8000/v1")

    @property
    def host(self) -> str:
        """The machine that texts go to."""
        return urlsplit(self.url).hostname or ""


class Estimate(NamedTuple):
    """What is still to be asked: requests, and tokens that go out and come back, at four letters each."""

    requests: int
    tokens_out: int
    tokens_back: int


def read_prompt(path: str | Path | None) -> str:
    """Return the prompt of a file, or the bundled one; the caption stands in for "{caption}".

    Raises:
      ConfigError: there is no such file, or no place for the caption in it.
    """
    bundled = resources.files("ranjax.data.captions") / "caption_prompt.txt"
    if path is not None and not Path(path).is_file():
        raise ConfigError("--prompt", str(path), "a text file")
    text = bundled.read_text("utf-8") if path is None else Path(path).read_text("utf-8")
    if PLACE not in text:
        raise ConfigError("--prompt", str(path), f"a text with {PLACE}, where the caption goes")
    return text.strip()


class Answers:
    """The answers that a file holds, by the hash of what was asked; a torn last line is cut off."""

    def __init__(self, path: Path):
        self.path, self._found = path, dict[str, str]()
        if path.is_file():
            whole = path.read_bytes()
            sound = whole[: whole.rfind(b"\n") + 1]
            for number, line in enumerate(sound.splitlines(), 1):
                try:
                    entry = json.loads(line)
                    self._found[entry["key"]] = entry["caption"]
                except (ValueError, KeyError, TypeError) as error:
                    raise DataError(f"line {number} of {path} is no answer; move the file away to ask anew.") from error
            if len(sound) < len(whole):
                with path.open("r+b") as file:
                    file.truncate(len(sound))

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def __getitem__(self, key: str) -> str:
        return self._found[key]

    def add(self, key: str, identity: str, caption: str) -> None:
        """Keep an answer; it is on the disk when this returns."""
        line = json.dumps({"key": key, "id": identity, "caption": caption}, ensure_ascii=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._found[key] = caption


def key_of(endpoint: Endpoint, prompt: str, caption: str) -> str:
    """Return the hash of what is asked: model, temperature, prompt and caption, not the server."""
    asked = json.dumps([endpoint.model, endpoint.temperature, prompt, caption])
    return hashlib.sha256(asked.encode()).hexdigest()


def estimate(endpoint: Endpoint, prompt: str, captions: Mapping[str, str], answers: Answers) -> Estimate:
    """Return what asking for the captions that have no answer yet comes to."""
    open_ = {caption for caption in captions.values() if key_of(endpoint, prompt, caption) not in answers}
    back = sum(map(len, open_)) // LETTERS_A_TOKEN
    return Estimate(len(open_), back + len(open_) * (len(prompt) // LETTERS_A_TOKEN), back)


def ask(endpoint: Endpoint, text: str) -> str:
    """Return a server's answer to one text, on one line, without quotation marks around it.

    Raises:
      DataError: the server refuses, fails on every try, or answers something else than a chat completion.
    """
    body = {
        "model": endpoint.model,
        "temperature": endpoint.temperature,
        "messages": [{"role": "user", "content": text}],
    }
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(KEY):
        headers["Authorization"] = f"Bearer {key}"
    address = f"{endpoint.url.rstrip('/')}/chat/completions"
    for number in range(endpoint.retries + 1):
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=endpoint.timeout) as response:
                content = json.load(response)["choices"][0]["message"]["content"]
                return one_line(str(content)).strip("\"'“”").strip()
        except urllib.error.HTTPError as error:
            with error:
                what = f"{address} answers {error.code} ({error.reason})"
            if error.code not in _AGAIN:
                raise DataError(f"{what}.") from error
        except (KeyError, IndexError, TypeError) as error:
            raise DataError(f"{address} answers something else than a chat completion.") from error
        except (OSError, ValueError) as error:  # no connection, a timeout, a cut answer
            what = f"{address} does not answer: {error}"
        if number < endpoint.retries:
            time.sleep(endpoint.wait * 2**number)
    raise DataError(f"{what}, {endpoint.retries + 1} times.")


def ask_all(
    endpoint: Endpoint,
    prompt: str,
    captions: Mapping[str, str],
    answers: Answers,
    parallel: int = 1,
    progress: Callable[[int], object] = lambda done: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, str]:
    """Ask for every caption that has no answer yet, some at a time, and return the rewritten captions by id.

    An empty answer is kept as such. Where the server fails, answers that are under way are waited for and kept.

    Args:
      captions: by id; equal ones are asked for once.
      answers: those of earlier runs, to which new ones are added.
      parallel: requests at a time.
      progress: called with the number of captions that have an answer.
      stop: ends the asking between two answers; what is there is returned.

    Raises:
      DataError: as `ask`, with the number of answers that are kept.
    """
    keys = {identity: key_of(endpoint, prompt, caption) for identity, caption in captions.items()}
    open_ = {keys[i]: (i, caption) for i, caption in captions.items() if keys[i] not in answers}
    with ThreadPoolExecutor(max(1, parallel)) as pool:
        for key, answer in _answered(endpoint, prompt, open_, pool, parallel, stop):
            if isinstance(answer, DataError):
                kept = sum(key in answers for key in keys.values())
                raise DataError(
                    f"{answer} {kept} of {len(keys)} answers are kept; the same command goes on."
                ) from answer
            answers.add(key, open_[key][0], answer)
            progress(sum(key in answers for key in keys.values()))
    return {identity: answers[key] for identity, key in keys.items() if key in answers}


def _answered(
    endpoint: Endpoint,
    prompt: str,
    open_: Mapping[str, tuple[str, str]],
    pool: ThreadPoolExecutor,
    parallel: int,
    stop: Callable[[], bool],
) -> Iterator[tuple[str, str | DataError]]:
    """Yield answers as they come, and at last the first error, once all that was under way has come."""
    left, running = iter(open_.items()), dict[Future[str], str]()
    fault: tuple[str, DataError] | None = None
    while True:
        while len(running) < max(1, parallel) and fault is None and not stop():
            if (item := next(left, None)) is None:
                break
            running[pool.submit(ask, endpoint, prompt.replace(PLACE, item[1][1]))] = item[0]
        if not running:
            break
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            key = running.pop(future)
            error = future.exception()
            if error is None:
                yield key, future.result()
            elif isinstance(error, DataError):
                fault = fault or (key, error)
            else:
                raise error
    if fault is not None:
        yield fault
