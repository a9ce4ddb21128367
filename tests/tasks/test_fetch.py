"""`rlino fetch` against a server of our own: whole or not at all, checked, and clear where it fails."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rlino_lib.cli import main as cli
from rlino_lib.errors import RlinoError
from rlino_lib.tasks import fetch

FILES = {"train.jsonl": bytes(range(256)) * 1200, "test.jsonl": b"test\n" * 2000}
SIZE = len(FILES["train.jsonl"])


class Server(ThreadingHTTPServer):
    """Serves FILES; a test sets how it misbehaves."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []  # the path of each request
        self.content = dict(FILES)
        self.cut = None  # bytes after which the line goes dead
        self.status = None
        self.endless = False
        self.sent = 0  # bytes of an endless answer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, name = self.server, self.path.lstrip("/")
        server.asked.append(name)
        if server.status:
            return self.send_error(server.status)
        if server.endless:
            return self.send_without_end()
        data = server.content[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: server.cut])

    def send_without_end(self):
        self.send_response(200)
        self.end_headers()
        try:
            while self.server.sent < 500_000_000:
                self.server.sent += self.wfile.write(bytes(1 << 16))
        except OSError:  # whoever asked has gone
            pass

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    known = {
        name: fetch.Remote(f"http://127.0.0.1:{made.server_port}/{name}", len(data), hashlib.sha256(data).hexdigest())
        for name, data in FILES.items()
    }
    monkeypatch.setitem(fetch.SETS, "gsm8k", known)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def held(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_all_files_come_and_are_not_asked_for_again(server, tmp_path):
    out = tmp_path / "a" / "b"
    result = fetch.fetch("gsm8k", out)
    assert result == {"data_set": "gsm8k", "folder": str(out), "train.jsonl": "fetched", "test.jsonl": "fetched"}
    assert held(out) == FILES and server.asked == ["train.jsonl", "test.jsonl"]
    again = fetch.fetch("gsm8k", out)
    assert again["train.jsonl"] == again["test.jsonl"] == "there already" and len(server.asked) == 2
    (out / "test.jsonl").write_bytes(b"other")
    assert fetch.fetch("gsm8k", out)["test.jsonl"] == "fetched" and held(out) == FILES


def test_a_cut_connection_leaves_nothing_behind(server, tmp_path):
    server.cut = 100_000
    with pytest.raises(RlinoError) as e:
        fetch.fetch("gsm8k", tmp_path / "new")
    assert "\n" not in str(e.value) and not (tmp_path / "new").exists()
    server.cut = None
    fetch.fetch("gsm8k", tmp_path / "new")
    assert held(tmp_path / "new") == FILES


@pytest.mark.parametrize(
    "content", [FILES["train.jsonl"][:-1] + b"?", FILES["train.jsonl"] + b"more", b"x" * 5_000_000]
)
def test_wrong_content_is_removed_and_nothing_is_lost(server, tmp_path, content):
    (tmp_path / "train.jsonl").write_bytes(b"an older file")
    server.content["train.jsonl"] = content
    with pytest.raises(RlinoError, match="not the original .*SHA-256") as e:
        fetch.fetch("gsm8k", tmp_path)
    assert "\n" not in str(e.value) and held(tmp_path) == {"train.jsonl": b"an older file"}
    server.content = FILES
    fetch.fetch("gsm8k", tmp_path)
    assert held(tmp_path) == FILES


def test_an_answer_without_end_is_left(server, tmp_path):
    server.endless = True
    with pytest.raises(RlinoError, match="not the original"):
        fetch.fetch("gsm8k", tmp_path)
    assert held(tmp_path) == {} and server.sent < 100_000_000


def test_an_error_of_the_server(server, tmp_path):
    server.status = 503
    with pytest.raises(RlinoError, match="answers 503 .*--from DIR"):
        fetch.fetch("gsm8k", tmp_path)
    assert held(tmp_path) == {}


def test_offline_is_one_line_and_exit_2(server, tmp_path, monkeypatch, capsys):
    for url in ("http://127.0.0.1:1/train.jsonl", "http://no-such-host.invalid/train.jsonl"):
        known = dict(fetch.SETS["gsm8k"])
        known["train.jsonl"] = known["train.jsonl"]._replace(url=url)
        monkeypatch.setitem(fetch.SETS, "gsm8k", known)
        assert cli.main(["fetch", "gsm8k", "--out", str(tmp_path / "o")]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1
        assert captured.err.startswith(f"rlino: cannot fetch {url}") and "--from DIR" in captured.err
    assert not (tmp_path / "o").exists()  # nothing came, so nothing is left behind
    (tmp_path / "o").mkdir()
    assert cli.main(["fetch", "gsm8k", "--out", str(tmp_path / "o")]) == 2
    assert held(tmp_path / "o") == {}  # a folder that was there stays


def test_from_a_folder(server, tmp_path, capsys):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    argv = ["fetch", "gsm8k", "--from", str(source), "--out", str(out)]
    (source / "train.jsonl").write_bytes(FILES["train.jsonl"])
    for test_file, words in ((None, "cannot read"), (b"other", "not the original")):
        if test_file:
            (source / "test.jsonl").write_bytes(test_file)
        assert cli.main(argv) == 2
        err = capsys.readouterr().err
        assert words in err and err.count("\n") == 1 and not out.exists()  # all are checked before one is copied
    (source / "test.jsonl").write_bytes(FILES["test.jsonl"])
    assert cli.main(argv) == 0
    assert json.loads(capsys.readouterr().out)["train.jsonl"] == "copied"
    assert held(out) == held(source) == FILES and server.asked == []
    assert fetch.fetch("gsm8k", source, source)["test.jsonl"] == "there already"


def test_from_a_folder_that_does_not_exist(server, tmp_path, monkeypatch, capsys):
    """The advice is not the command that has just been given, and no empty folder stays behind."""
    monkeypatch.setenv("RLINO_DATA", str(tmp_path / "data"))
    for out in ([], ["--out", str(tmp_path / "out")]):
        assert cli.main(["fetch", "gsm8k", "--from", str(tmp_path / "none"), *out]) == 2
        err = capsys.readouterr().err
        assert "cannot read" in err and "--from takes a folder that holds the original train.jsonl" in err
        assert "rlino fetch gsm8k" not in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [] and server.asked == []


def test_where_the_files_go(server, tmp_path, monkeypatch, root):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RLINO_DATA", raising=False)
    assert fetch.data_folder("gsm8k") == tmp_path / ".cache" / "rlino" / "gsm8k"
    monkeypatch.setenv("RLINO_DATA", "~/data")
    assert fetch.fetch("gsm8k")["folder"] == str(tmp_path / "data" / "gsm8k")
    assert held(tmp_path / "data" / "gsm8k") == FILES
    with pytest.raises(RlinoError, match="holds no data sets"):
        fetch.fetch("gsm8k", root / "data" / "gsm8k")
    assert not (root / "data" / "gsm8k").exists()
    with pytest.raises(RlinoError, match="unknown data set"):
        fetch.fetch("mnist", tmp_path)


def test_a_folder_that_cannot_be_written_is_one_line(server, tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"")
    assert cli.main(["fetch", "gsm8k", "--out", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help_has_examples_and_other_names_are_refused(capsys):
    with pytest.raises(SystemExit) as e:
        cli.main(["fetch", "--help"])
    assert e.value.code == 0 and "rlino fetch gsm8k --from" in capsys.readouterr().out
    assert cli.main(["fetch", "mnist"]) == 2
    assert "invalid choice" in capsys.readouterr().err
    assert all(r.url.startswith("https://") and r.url.endswith(f) for f, r in fetch.SETS["gsm8k"].items())
