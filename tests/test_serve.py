"""ernie2.serve: every kind of model over HTTP as predict answers it, limits, metrics, the page in a browser."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from conftest import ROOT
from finetuning import CHECK
from test_predict import lines, models  # noqa: F401 - a fixture
from test_report_browser import GROUNDS, TEXTS, contrast, rgb

from ernie2 import export
from ernie2.predict import predict_file
from ernie2.tokenizer import SPECIAL_TOKENS, Tokenizer, Vocab

for package in ("fastapi", "prometheus_client", "uvicorn"):
    pytest.importorskip(package)
from fastapi.testclient import TestClient  # noqa: E402

from ernie2 import serve, serving  # noqa: E402


def items(data: Path, kind: str) -> list[dict]:
    """The test file's rows as inputs."""
    if kind == "span":
        articles = json.loads((data / "test.json").read_text(encoding="utf-8"))["data"]
        paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
        return [{"context": p["context"], "question": qa["question"]} for p in paragraphs for qa in p["qas"]]
    header, *rows = (data / "test.tsv").read_text(encoding="utf-8").splitlines()
    names = header.split("\t")
    found = [dict(zip(names, row.split("\t"), strict=True)) for row in rows]
    return [{key: row[key] for key in ("text_a", "text_b") if key in row} for row in found]


@pytest.fixture(scope="module")
def client(models):  # noqa: F811
    served = [serve.load(models[kind][0], kind) for kind in CHECK]
    checkpoint = next(iter(models.values()))[0].parent / "tiny"
    assert checkpoint.is_dir()
    with TestClient(serve.build(served)) as made:
        yield made


@pytest.mark.parametrize("kind", CHECK)
def test_answers_are_those_of_predict(kind, client, models, tmp_path):  # noqa: F811
    out, data = models[kind]
    inputs = items(data, kind)
    reply = client.post(f"/{kind}", json={"inputs": inputs})
    assert reply.status_code == 200, reply.text
    found = reply.json()["predictions"]
    target = tmp_path / ("p.json" if kind == "span" else "p.jsonl")
    nbest = tmp_path / "n.json" if kind == "span" else None
    assert predict_file(out, next(data.glob("test.*")), target, nbest) == len(found) == 32
    if kind == "span":
        assert [one["answer"] for one in found] == list(json.loads(target.read_text()).values())
        return
    for one, line in zip(found, lines(target), strict=True):
        for key in one.keys() - {"probabilities", "score"}:
            assert one[key] == line[key]
        for key in one.keys() & {"probabilities", "score"}:
            assert one[key] == pytest.approx(line[key], abs=1e-5)


def test_an_export_is_served(models, tmp_path):  # noqa: F811
    out, data = models["classification"]
    export.export(out, tmp_path / "out", "paddle")
    both = [serve.load(out, "model"), serve.load(tmp_path / "out", "export")]
    with TestClient(serve.build(both)) as made:
        inputs = {"inputs": items(data, "classification")}
        first, second = (
            made.post(f"/{name}", json=inputs).json()["predictions"] for name in ("model", "export")
        )
        assert [one["label"] for one in first] == [one["label"] for one in second]


HOSTILE = [
    ("classification", {}, 422),
    ("classification", {"inputs": []}, 422),
    ("classification", {"inputs": [{"text_a": ""}]}, 422),
    ("classification", {"inputs": [{"text_a": 5}]}, 422),
    ("classification", {"inputs": [{"text": "书"}]}, 422),
    ("classification", {"inputs": [{"text_a": "书", "extra": 1}]}, 422),
    ("classification", {"inputs": [{"text_a": "书"}] * 65}, 422),
    ("classification", {"inputs": [{"text_a": "书" * 20_001}]}, 422),
    ("classification", {"inputs": [{"text_a": "书" * 400_000}]}, 413),
    ("classification", {"inputs": [{"text_a": "书", "text_b": "山"}]}, 422),
    ("span", {"inputs": [{"text_a": "书"}]}, 422),
    ("none", {"inputs": [{"text_a": "书"}]}, 404),
]


@pytest.mark.parametrize(("path", "body", "status"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_requests_get_a_reason(path, body, status, client):
    reply = client.post(f"/{path}", json=body)
    assert reply.status_code == status and reply.json()["detail"]
    assert client.get("/health").json()["status"] == "ok"


def test_what_is_no_json_gets_a_reason(client):
    for data in (b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"inputs": [{"text_a": "\\ud800"}]}'):
        reply = client.post("/classification", content=data, headers={"content-type": "application/json"})
        assert reply.status_code in (200, 400, 422) and reply.text
    assert client.get("/classification").status_code == 405
    assert client.get("/health").json()["models"]["span"] == "span"


def test_a_bad_input_does_not_spoil_its_neighbours(client, models):  # noqa: F811
    """Requests that are computed together: one is refused, the others are answered."""
    good = {"inputs": items(models["classification"][1], "classification")[:2]}
    bad = {"inputs": [{"text_a": "书", "text_b": "山"}]}
    with ThreadPoolExecutor(16) as pool:
        bodies = [good, bad] * 16
        found = [
            reply.status_code for reply in pool.map(lambda b: client.post("/classification", json=b), bodies)
        ]
    assert found == [200, 422] * 16


def test_metrics_count_answers_and_refusals(models):  # noqa: F811
    with TestClient(serve.build([serve.load(models["classification"][0], "m")])) as made:
        for text, times in (("书山", 3), ("", 2), ("书" * 400_000, 1)):
            for _ in range(times):
                made.post("/m", json={"inputs": [{"text_a": text}] * 2})
        made.get("/m")
        made.get("/none")
        said = made.get("/metrics").text
        for status, count in ((200, 3), (422, 2), (413, 1), (405, 1)):
            assert f'ernie2_requests_total{{model="m",status="{status}"}} {count}.0' in said
        assert 'ernie2_inputs_total{model="m"} 6.0' in said and 'ernie2_waiting{model="m"} 0.0' in said
        assert 'ernie2_request_seconds_count{model="m"} 3.0' in said and "none" not in said
        assert {"/m", "/health"} <= made.get("/openapi.json").json()["paths"].keys()


def test_too_many_that_wait_are_refused(client, monkeypatch):
    monkeypatch.setattr(serve, "MAX_WAITING", 3)
    reply = client.post("/classification", json={"inputs": [{"text_a": "书"}] * 4})
    assert reply.status_code == 503 and reply.headers["retry-after"] == "1"


def test_a_token(models):  # noqa: F811
    app = serve.build([serve.load(models["classification"][0], "m")], token="secret")
    body = {"inputs": [{"text_a": "书"}]}
    with TestClient(app) as made:
        assert made.get("/health").status_code == made.get("/").status_code == 200
        assert made.get("/metrics").status_code == 401
        for header, status in (("Bearer secret", 200), ("Bearer no", 401), ("secret ", 401), ("", 401)):
            assert made.post("/m", json=body, headers={"Authorization": header}).status_code == status


def test_words_for_mask(tiny_recipe, tmp_path):
    from test_checkpoint import prepare

    from ernie2 import pretrain

    pretrain.train(prepare(tiny_recipe, "runtime.max_steps=1", f"out_dir={tmp_path / 'run'}"))
    served = serve.load(tmp_path / "run" / "step_0000001", "words")
    assert served.kind == "cloze"
    with TestClient(serve.build([served])) as made:
        texts = ["a[MASK][MASK]b [MASK]", "[MASK]", "b" * 9 + "[MASK]a"]
        inputs = [{"text": text, "top_k": 3} for text in texts]
        found = made.post("/words", json={"inputs": inputs}).json()["predictions"]
        assert [len(one["words"]) for one in found] == [2, 1, 1]
        for one, alone in zip(found, inputs, strict=True):  # padding and neighbours change nothing
            again = made.post("/words", json={"inputs": [alone]}).json()["predictions"][0]
            for best, same in zip(one["words"], again["words"], strict=True):
                assert [word["word"] for word in best] == [word["word"] for word in same] and len(best) == 3
                chances = [word["probability"] for word in best]
                assert chances == pytest.approx([word["probability"] for word in same], rel=1e-4)
                assert chances == sorted(chances, reverse=True) and 0 < chances[0] < 1
        for text, count in (("no mask", 0), ("[MASK]" * 33, 33), ("[MASK]" + "a " * 999, 1)):
            refused = made.post("/words", json={"inputs": [{"text": text}]})
            assert refused.status_code == 422 and f"found {count} and" in refused.json()["detail"]


def test_the_best_words_are_those_of_all_pairs():
    """The search over adjacent masks against every pair of tokens."""
    tokenizer = Tokenizer(Vocab([*SPECIAL_TOKENS, *"abcdefgh"]))
    chances = np.random.default_rng(3).dirichlet(np.ones(8), 2)
    order = np.argsort(-chances, axis=1)
    scores = np.log(np.take_along_axis(chances, order, 1))
    found = serving._best_words(scores, order + len(SPECIAL_TOKENS), 6, tokenizer)
    pairs = sorted(((a * b) for a in chances[0] for b in chances[1]), reverse=True)
    assert [one["probability"] for one in found] == pytest.approx(pairs[:6])
    first, second = np.unravel_index(np.argmax(np.outer(*chances)), (8, 8))
    assert found[0]["word"].replace(" ", "") == "abcdefgh"[first] + "abcdefgh"[second]


@pytest.fixture()
def process(models):  # noqa: F811
    """(base address, process) of the command on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    command = [sys.executable, "-m", "ernie2.serve", "--port", str(port)]
    command += [f"{kind}={models[kind][0]}" for kind in ("classification", "span", "tagging")]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    address = f"http://127.0.0.1:{port}"
    end = time.monotonic() + 120
    while time.monotonic() < end and running.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
            break
        except OSError:
            time.sleep(0.2)
    yield address, running
    running.kill()
    running.wait()


def ask(address: str, path: str, body: dict) -> dict:
    request = urllib.request.Request(
        f"{address}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def test_the_command_answers_and_stops_gracefully(process, models, capsys):  # noqa: F811
    address, running = process
    inputs = items(models["classification"][1], "classification")
    port = address.rpartition(":")[2]
    line, times = http.client.HTTPConnection("127.0.0.1", int(port)), []
    for _ in range(30):
        begin = time.perf_counter()
        line.request("GET", "/health")
        assert json.load(line.getresponse())["status"] == "ok"
        times.append(time.perf_counter() - begin)
    assert np.median(times) < 0.03, "an answer does not wait for the client to confirm its first packet"
    line.close()
    with pytest.raises(SystemExit) as stop:
        serve.main([str(models["classification"][0]), "--port", port])
    assert stop.value.code == 2 and "Address already in use" in capsys.readouterr().err
    found: list = []
    asking = [
        threading.Thread(target=lambda: found.append(ask(address, "classification", {"inputs": inputs})))
        for _ in range(8)
    ]
    for one in asking:
        one.start()
    time.sleep(0.3)
    running.send_signal(signal.SIGTERM)
    for one in asking:
        one.join()
    assert len(found) == 8 and all(len(one["predictions"]) == 32 for one in found)
    assert running.wait(60) in (0, -signal.SIGTERM, 143)


def test_a_missing_package_is_named(tmp_path):
    (tmp_path / "fastapi.py").write_text("raise ImportError(\"No module named 'fastapi'\")")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "ernie2.serve", "none"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "No module named 'fastapi'; pip install fastapi uvicorn prometheus_client" in done.stderr


def test_bad_command_lines(models, tmp_path, capsys):  # noqa: F811
    best = str(models["classification"][0])
    cases = {
        ("health=" + best,): "model name 'health'",
        ("a=" + best, "a=" + best): "two models are called 'a'",
        (str(tmp_path),): "is no checkpoint folder",
    }
    for arguments, words in cases.items():
        with pytest.raises(SystemExit) as stop:
            serve.main([*arguments, "--port", "0"])
        assert stop.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
def test_the_page_in_a_browser(process, models, tmp_path):  # noqa: F811
    address, _ = process
    one = items(models["span"][1], "span")[0]
    texts = [{"text_a": row["text_a"].replace("\x02", "")} for row in items(models["tagging"][1], "tagging")]
    found = ask(address, "tagging", {"inputs": texts})["predictions"]
    tagged, entities = next((record["text"], record["entities"]) for record in found if record["entities"])
    with Browser(tmp_path / "profile") as browser:
        browser.open(f"{address}/", 1200)
        choose = "m=document.getElementById('model');m.value='{}';m.onchange();"
        fill = "document.getElementById('{}').value={};"
        send = "document.querySelector('button').click()"
        browser.evaluate(
            choose.format("span") + "".join(fill.format(k, json.dumps(v)) for k, v in one.items()) + send
        )
        answer = ask(address, "span", {"inputs": [one]})["predictions"][0]["answer"]
        _until(browser, "!!document.querySelector('mark')")
        assert browser.evaluate("document.querySelector('mark').textContent") == answer != ""
        assert one["context"] in browser.evaluate("document.getElementById('answer').textContent")
        _readable(browser)
        browser.evaluate(choose.format("tagging") + fill.format("text_a", json.dumps(tagged)) + send)
        _until(browser, "!!document.querySelector('mark small')")
        said = browser.evaluate(
            "[...document.getElementById('answer').childNodes].map(e => e.nodeType === 3 ? e.textContent : "
            "e.firstChild.textContent).join('')"
        )
        assert said == tagged
        marks = browser.evaluate(
            "[...document.querySelectorAll('mark')].map(e => [e.firstChild.textContent, e.lastChild.textContent])"
        )
        assert marks == [[entity["text"], entity["type"]] for entity in entities]
        _readable(browser)
        browser.evaluate(choose.format("classification") + fill.format("text_a", '"书好"') + send)
        _until(browser, "document.querySelectorAll('.bar').length === 2")
        _readable(browser)
        assert not browser.console
        assert all(request.startswith((address, "data:", "about:")) for request in browser.requests)


def _readable(browser: Browser) -> None:
    """Nothing moves sideways and every text stands out, on a phone and a desk, in the light and the dark."""
    for width, scheme in itertools.product((360, 1200), ("light", "dark")):
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.call("Emulation.setDeviceMetricsOverride", **size)
        dark = {"name": "prefers-color-scheme", "value": scheme}
        browser.call("Emulation.setEmulatedMedia", features=[dark])
        assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
        heading, *texts = browser.evaluate(TEXTS)
        assert rgb(heading["behind"]) == GROUNDS[scheme] and len(texts) >= 7
        for one in (heading, *texts):
            assert contrast(rgb(one["color"]), rgb(one["behind"])) >= 4.5, (scheme, one)


def _until(browser: Browser, condition: str) -> None:
    end = time.monotonic() + 60
    while not browser.evaluate(condition):
        assert time.monotonic() < end, browser.evaluate("document.getElementById('answer').textContent")
        time.sleep(0.1)
