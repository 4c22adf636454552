"""A server on the loopback that has the toy model twice: as a base and with an adapter.

Speaks what llama.cpp's llama-server and vLLM do, as far as the runner asks. `breaks` answers in its
place where it wants to.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from adapterscan.runner import Side
from tests.detectors.toy_model import ASSISTANT, END, ToyRunner

BASE, ADAPTER = "toy", "toy-adapter"
Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Loopback:
    """`most`: log-probabilities that it gives. `template`: whether it has a chat template."""

    model: ToyRunner
    dialect: str = "llama.cpp"  # or "vllm"
    most: int = 200
    template: bool = True
    names: tuple[str, ...] = (BASE, ADAPTER)
    breaks: Callable[[str, Any], Answer | None] = lambda path, body: None
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, body: Any) -> Any:
        """Return what is sent as JSON, or an int: a status."""
        match path:
            case "/v1/models":
                return {"data": [{"id": name} for name in self.names]}
            case "/apply-template":
                known = self.dialect == "llama.cpp" and self.template
                return {"prompt": self._layout(body["messages"])} if known else 404
            case "/tokenize" if "messages" in body:
                if self.dialect == "llama.cpp" or not self.template:
                    return 400
                return {"tokens": self._ids(self._layout(body["messages"]))}
            case "/tokenize":
                text = body["content" if self.dialect == "llama.cpp" else "prompt"]
                return {"tokens": self._ids(text)}
            case "/detokenize":
                text = " ".join(self.model.words[i] for i in body["tokens"])
                return {"content" if self.dialect == "llama.cpp" else "prompt": text}
            case "/v1/completions":
                return self._completion(body) if body["logprobs"] <= self.most else 400
        return 404

    def _layout(self, messages: Any) -> str:
        said = [
            f"{ASSISTANT} {m['content']} {END}" if m["role"] == "assistant" else m["content"]
            for m in messages
        ]
        return " ".join((*said, ASSISTANT))

    def _ids(self, text: str) -> list[int]:
        (ids,) = self.model.tokenize([text])
        return list(ids)

    def _completion(self, body: Any) -> Any:
        side = Side.ADAPTER if body["model"] == ADAPTER else Side.BASE
        row, said = tuple(body["prompt"]), []
        for _ in range(body["max_tokens"]):
            p = self.model._next(side, row)
            top = [int(i) for i in np.argsort(-p, kind="stable")[: body["logprobs"]]]
            logs = {i: float(np.log(p[i])) if p[i] else -3.4e38 for i in top}
            said.append((int(p.argmax()), logs))
            row = (*row, said[-1][0])
            if said[-1][0] == 0:
                break
        if self.dialect == "vllm":
            logprobs: Any = {
                "tokens": [f"token_id:{t}" for t, _ in said],
                "top_logprobs": [{f"token_id:{i}": v for i, v in top.items()} for _, top in said],
            }
        else:
            content = [
                {"id": t, "top_logprobs": [{"id": i, "logprob": v} for i, v in top.items()]}
                for t, top in said
            ]
            logprobs = {"content": content}
        return {"choices": [{"text": "", "logprobs": logprobs}]}


@contextmanager
def serving(loopback: Loopback) -> Iterator[Loopback]:
    """Serve on a free port of the loopback; `url` is its address."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(size)) if size else None
            with lock:
                loopback.asked.append((self.path, dict(self.headers), body))
                answer = loopback.breaks(self.path, body)
                if answer is None:
                    said = loopback.answer(self.path, body)
                    status = said if isinstance(said, int) else 200
                    answer = (status, {}, json.dumps(said).encode())
            status, headers, data = answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that goes away is no failure of the test."""

    with Quiet(("127.0.0.1", 0), Handler) as server:
        loopback.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield loopback
        finally:
            server.shutdown()
            thread.join()
