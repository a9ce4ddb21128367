"""`rlino grade`: responses in, graded responses out, malformed lines named and left out."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlino_lib.cli import grade as grading
from rlino_lib.cli.main import build_parser
from rlino_lib.errors import RlinoError
from rlino_lib.tasks.countdown.grade import grade_countdown

RIGHT = {"nums": [8, 2, 4], "target": 64, "response": "<answer> ( 8 * 4 ) * 2 </answer>"}
WRONG = {"response": "so <answer> 8 + 4 </answer>", "target": 64, "nums": [8, 2, 4], "id": 7}
NONE = {"nums": [8, 2, 4], "target": 64, "response": "\ud800 I give up é\u2028"}
RECORDS = [RIGHT, WRONG, NONE]


def jsonl(*records: object) -> bytes:
    return b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in records)


def run(*argv: str) -> int:
    return grading.main(build_parser().parse_args(["grade", *argv]))


@pytest.fixture
def answers(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(jsonl(*RECORDS))
    return path


# --- lines -----------------------------------------------------------------------------------------------------------


def outputs(lines: bytes, **settings) -> list[dict]:
    return [json.loads(line.output) for line in grading.grade_stream(io.BytesIO(lines), **settings) if line.output]


def faults(lines: bytes) -> dict[int, str]:
    return {line.number: line.fault for line in grading.grade_stream(io.BytesIO(lines)) if line.fault}


@pytest.mark.parametrize(("rewards", "expected"), [("binary", [1, 0, 0]), ("format", [1, 0.1, 0])])
def test_lines_come_back_in_order_with_their_own_keys_first(rewards, expected):
    got = outputs(jsonl(*RECORDS), rewards=rewards)
    assert [r["reward"] for r in got] == expected
    assert [r["correct"] for r in got] == [True, False, False]
    assert [r["reason"] for r in got] == ["equals 64", "does not use 2", "no <answer> … </answer>"]
    for before, after in zip(RECORDS, got, strict=True):
        assert list(after) == [*before, "reward", "correct", "reason"]
        assert {k: after[k] for k in before} == before


def test_other_keys_pass_through_and_old_verdicts_are_replaced_in_place():
    record = {"reward": "?", **RIGHT, "more": {"a": [1.5, None, True, -0.0, 1e-300, 10**40, "\x00"]}, "": []}
    (got,) = outputs(jsonl(record))
    assert got == {**record, "reward": 1.0, "correct": True, "reason": "equals 64"}
    assert list(got)[0] == "reward"


def test_graded_lines_can_be_graded_again():
    once = outputs(jsonl(*RECORDS))
    assert outputs(jsonl(*once)) == once


def test_blank_lines_and_line_ends():
    lines = (
        b"\xef\xbb\xbf"
        + jsonl(RIGHT)
        + b"\n  \t\r\n"
        + jsonl(WRONG).replace(b"\n", b"\r\n")
        + b"\n"
        + jsonl(NONE).strip()
    )
    assert [line.number for line in grading.grade_stream(io.BytesIO(lines))] == [1, 4, 6]
    assert [r["correct"] for r in outputs(lines)] == [True, False, False]
    assert outputs(b"") == outputs(b"\n\n") == []


BAD = [
    (b"{", "not JSON: "),
    (b"nums", "not JSON: "),
    (b'{"nums": [1], "target": 1, "response": "a"} {}', "not JSON: Extra data at character "),
    (b"[]", "not an object"),
    (b"null", "not an object"),
    (b'"text"', "not an object"),
    (b"3", "not an object"),
    (b"{}", "no key 'response'"),
    ({**RIGHT, "response": None}, "response is not a string"),
    ({**RIGHT, "response": ["a"]}, "response is not a string"),
    ({k: v for k, v in RIGHT.items() if k != "nums"}, "no key 'nums'"),
    ({k: v for k, v in RIGHT.items() if k != "target"}, "no key 'target'"),
    ({**RIGHT, "nums": 8}, "nums is not a list"),
    ({**RIGHT, "nums": "824"}, "nums is not a list"),
    ({**RIGHT, "nums": {"8": 1}}, "nums is not a list"),
    ({**RIGHT, "nums": []}, "nums is not a list of 1 to 10"),
    ({**RIGHT, "nums": [1] * 11}, "nums is not a list of 1 to 10"),
    ({**RIGHT, "nums": [8, 2, True]}, "nums holds something else"),
    ({**RIGHT, "nums": [8, 2, 4.0]}, "nums holds something else"),
    ({**RIGHT, "nums": [8, 2, "4"]}, "nums holds something else"),
    ({**RIGHT, "nums": [8, 2, [4]]}, "nums holds something else"),
    ({**RIGHT, "nums": [8, 2, None]}, "nums holds something else"),
    ({**RIGHT, "nums": [8, 2, 0]}, "nums holds something else"),
    ({**RIGHT, "nums": [8, 2, -4]}, "nums holds something else"),
    ({**RIGHT, "nums": [8, 2, 10**9 + 1]}, "nums holds something else"),
    ({**RIGHT, "target": True}, "target is not an integer"),
    ({**RIGHT, "target": 64.0}, "target is not an integer"),
    ({**RIGHT, "target": "64"}, "target is not an integer"),
    ({**RIGHT, "target": None}, "target is not an integer"),
    ({**RIGHT, "target": 10**9 + 1}, "target is not an integer"),
    ({**RIGHT, "target": float("nan")}, "holds NaN"),
    ({**RIGHT, "more": float("inf")}, "holds Infinity"),
    ({**RIGHT, "more": -float("inf")}, "holds -Infinity"),
    (b'{"nums": [1], "target": 1, "response": "a", "x": [1e999]}', "holds 1e999"),
    (b'{"nums": [1], "nums": [2], "target": 1, "response": "a"}', "has the key 'nums' twice"),
    (b'{"nums": [1], "target": ' + b"1" * 5000 + b', "response": "a"}', "Exceeds the limit (4300 digits)"),
    (b'{"nums": [1], "target": 1, "response": "\xff"}', "not UTF-8 at byte 41"),
    (b'{"response": "\xed\xa0\x80"}', "not UTF-8 at byte 15"),
    ("".join(map(chr, range(32, 99))).encode("utf-16"), "not UTF-8 at byte 1"),
    (b"\x00", "not JSON: "),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"x": ' * 100_000, "nested too deeply"),
]


@pytest.mark.parametrize(("bad", "why"), BAD, ids=[f"{i}-{why[:24]}" for i, (_, why) in enumerate(BAD)])
def test_malformed_lines_are_named_and_the_rest_is_graded(bad, why):
    lines = jsonl(RIGHT, bad, WRONG)
    (fault,) = faults(lines).values()
    assert fault.startswith(why) and "\n" not in fault and len(fault) < 200
    assert list(faults(lines)) == [2]
    assert [r["correct"] for r in outputs(lines)] == [True, False]


def test_depth_at_the_limit_of_recursion_is_either_graded_or_reported():
    for depth in range(sys.getrecursionlimit() - 250, sys.getrecursionlimit() + 20):
        (line,) = grading.grade_stream(
            [json.dumps(RIGHT).encode()[:-1] + b', "x": ' + b"[" * depth + b"]" * depth + b"}"]
        )
        assert line.correct or line.fault == "nested too deeply"


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=60), st.sampled_from([jsonl(r).strip() for r in RECORDS])), max_size=6))
def test_no_bytes_raise(lines):
    for line in grading.grade_stream(lines):
        assert (line.output is None) != (line.fault is None)
        assert line.output is None or "\n" not in line.output


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=5),
    st.integers(-5, 100),
    st.text(st.characters(exclude_categories=()), max_size=40),
    st.booleans(),
)
def test_the_file_and_the_function_agree(nums, target, text, tagged):
    response = f"<answer>{text}</answer>" if tagged else text
    (got,) = outputs(jsonl({"nums": nums, "target": target, "response": response}))
    expected = grade_countdown(nums, target, response)
    assert (got["reward"], got["correct"], got["reason"]) == (expected.reward, expected.correct, expected.reason)
    assert got["response"] == response


def test_the_stream_is_not_read_ahead():
    def endless():
        for k in range(10**9):
            read.append(k)
            yield jsonl(RIGHT)

    read: list[int] = []
    stream = grading.grade_stream(endless())
    for k in range(1, 4):
        assert next(stream).number == k and len(read) == k


def test_unknown_task_and_reward_scheme():
    for bad in (dict(task_name="chess"), dict(rewards="gold")):
        with pytest.raises(RlinoError):
            list(grading.grade_stream([], **bad))


# --- the command -----------------------------------------------------------------------------------------------------


def test_stdout_holds_the_lines_and_stderr_the_summary(answers, capsys):
    assert run(str(answers)) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["correct"] for line in out.splitlines()] == [True, False, False]
    assert out.isascii() and err == "3 graded, 1 right (33.3%), 0 malformed\n"


def test_malformed_lines_give_exit_code_2_and_no_output(answers, capsys):
    answers.write_bytes(jsonl(RIGHT, b"?", b"", {**RIGHT, "nums": None}, WRONG))
    assert run(str(answers), "--rewards", "format") == 2
    out, err = capsys.readouterr()
    assert [json.loads(line)["reward"] for line in out.splitlines()] == [1.0, 0.1]
    assert err.splitlines() == [
        "line 2: not JSON: Expecting value at character 1",
        "line 4: nums is not a list of 1 to 10 integers",
        "2 graded, 1 right (50.0%), 2 malformed",
    ]


def test_after_the_first_malformed_lines_the_rest_is_counted(answers, capsys):
    answers.write_bytes(jsonl(RIGHT, *[b"\xff\x00"] * 3000, WRONG))
    assert run(str(answers)) == 2
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert err.splitlines()[19:] == [
        "line 21: not UTF-8 at byte 1",
        "… and 2,980 more malformed lines",
        "2 graded, 1 right (50.0%), 3000 malformed",
    ]


def test_out_is_whole_and_stdout_ends_with_one_json_line(answers, tmp_path, capsys):
    target = tmp_path / "graded.jsonl"
    target.write_text("old")
    assert run(str(answers), "--out", str(target)) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"n": 3, "right": 1, "malformed": 0, "share": 1 / 3, "out": str(target)}
    assert [json.loads(line)["correct"] for line in target.read_text().splitlines()] == [True, False, False]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["answers.jsonl", "graded.jsonl"]
    assert run(str(answers)) == 0
    assert capsys.readouterr().out == target.read_text()


def test_out_may_be_the_file_itself(answers):
    assert run(str(answers), "--out", str(answers)) == 0
    assert [json.loads(line)["correct"] for line in answers.read_text().splitlines()] == [True, False, False]


def test_a_file_is_not_graded_in_place_where_lines_would_be_lost(answers):
    before = answers.read_bytes()
    with pytest.raises(RlinoError, match="malformed lines would be lost"):
        run(str(answers), "--task", "gsm8k", "--out", str(answers))
    assert answers.read_bytes() == before


def test_out_stays_as_it_was_when_grading_stops(answers, tmp_path, monkeypatch):
    def fails(*_):
        yield grading.Line(1, "{}")
        raise KeyboardInterrupt

    target = tmp_path / "graded.jsonl"
    target.write_text("old")
    monkeypatch.setattr(grading, "grade_stream", fails)
    with pytest.raises(KeyboardInterrupt):
        run(str(answers), "--out", str(target))
    assert target.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["answers.jsonl", "graded.jsonl"]


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_file(answers, tmp_path, capsys, content):
    answers.write_bytes(content)
    assert run(str(answers), "--out", str(tmp_path / "out")) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["share"] is None and err == "0 graded, 0 right, 0 malformed\n"
    assert (tmp_path / "out").read_bytes() == b""


def test_stdin(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(jsonl(*RECORDS))))
    assert run("-") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_files_that_cannot_be_read_or_written_are_one_line(answers, tmp_path):
    cases = [
        ([tmp_path / "none.jsonl"], "No such file.*none.jsonl"),
        ([tmp_path], "Is a directory"),
        ([answers, "--out", tmp_path], "cannot write .*: not a regular file"),
        ([answers, "--out", "/dev/null"], "cannot write /dev/null: not a regular file"),
        ([answers, "--out", tmp_path / "no" / "out"], "No such file"),
        ([answers, "--out", answers / "out"], "Not a directory"),
        ([answers, "--out", tmp_path / ("x" * 252)], "File name too long"),
    ]
    for argv, why in cases:
        with pytest.raises((RlinoError, OSError), match=why) as e:  # a line each, by `run_program`
            run(*map(str, argv))
        assert "\n" not in str(e.value)
    assert [p.name for p in tmp_path.iterdir()] == ["answers.jsonl"]


@pytest.mark.parametrize("argv", [[], ["a", "--task", "chess"], ["a", "--rewards", "gold"]])
def test_bad_options_are_refused(argv):
    with pytest.raises(RlinoError, match="see rlino grade --help"):
        run(*argv)


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit):
        run("--help")
    assert "rlino grade answers.jsonl" in capsys.readouterr().out


# --- as a program ----------------------------------------------------------------------------------------------------


def program(*argv: str, stdin: bytes = b"") -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "rlino_lib.cli", "grade", *argv], input=stdin, capture_output=True)


def test_the_program(answers):
    got = program("--task", "countdown", str(answers))
    assert got.returncode == 0
    assert [json.loads(line)["correct"] for line in got.stdout.splitlines()] == [True, False, False]
    assert got.stderr == b"3 graded, 1 right (33.3%), 0 malformed\n"
    again = program("-", stdin=answers.read_bytes() + b"?\n")
    assert (again.returncode, again.stdout) == (2, got.stdout)


def test_the_program_on_a_missing_file(tmp_path):
    got = program(str(tmp_path / "none.jsonl"))
    assert (got.returncode, got.stdout, got.stderr.count(b"\n")) == (2, b"", 1)
    assert b"No such file" in got.stderr


def test_the_program_whose_reader_leaves(answers):
    answers.write_bytes(jsonl(RIGHT) * 2000)
    command = [sys.executable, "-m", "rlino_lib.cli", "grade", str(answers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read() and process.wait() == 0
