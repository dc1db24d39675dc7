"""A user's mistakes: a sentence that names the bad value and the way out, an exit code, never a traceback."""

from __future__ import annotations

import gzip
import http.server
import re
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from clitools import commands, dgdm, ended, process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOBODY = "127.0.0.1:1"  # a port at which nothing listens
UNREACHABLE = f"kafka://{NOBODY}"
ARGUMENTS = {"produce": ["events.jsonl"], "export": ["table.npz"]}
ONE = '{"type": "AddNode", "id": "a"}\n'
SLOW = {"worker", "up"}  # a process of its own each: what they share with the others is tried with one value


def _commands() -> dict[str, Any]:
    """All that read settings; `model` and `tpu` read none, and have mistakes of their own: test_model_commands."""
    return {path: one for path, one in commands().items() if path.split()[0] not in ("model", "tpu")}


def require_sentence(code: int, said: str, *pieces: str, expected: int = 2) -> None:
    """Every piece is there, in whatever lines, and no traceback."""
    plain = " ".join(re.sub(r"[│╭╮╰╯─]", " ", said).split())
    assert "Traceback" not in said, said
    assert code == expected, said
    for piece in pieces:
        assert piece in plain, plain


def refused(args: list[str], *pieces: str, expected: int = 2, **options: Any) -> None:
    """Run in this process; the sentence is on standard error, and nothing else went wrong."""
    result = dgdm(*args, **options)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    require_sentence(result.exit_code, result.stderr, *pieces, expected=expected)


# -- every option of every command

BAD_OPTIONS: dict[str, list[tuple[str, tuple[str, ...]]]] = {
    "--log": [
        ("foo", ("'foo' is no address of a log", "kafka://host:port")),
        ("kafka://:9092", ("kafka://:9092", "is not host:port")),
        ("kafka://me:secret@host:1", ("…@host:1", "do not go into the address")),
        ("sqlite://log.db", ("sqlite://log.db", "names no file", "sqlite:///relative/path")),
        ("sqlite:///events.jsonl", ("events.jsonl is not a dgdm log", "name another file")),
        (UNREACHABLE, (NOBODY, "Connection refused")),
    ],
    "--broker": [("foo", ("'foo' is no address of a log", "kafka://host:port"))],
    "--store": [
        ("foo", ("'foo'", "use redis://")),
        ("redis://127.0.0.1:1/first", ("127.0.0.1:1/first", "redis://host:port/0")),
        ("sqlite:///", ("sqlite:///", "names no file")),
    ],
    "--graph": [("a b", ("graph = 'a b'", "1 to 100 of the characters"))],
    "--features": [
        ("x", ("features = 'x'", "a whole number, at least 1, at most 65536")),
        ("0", ("features = '0'", "at least 1")),
    ],
    "--accuracy": [
        ("x", ("accuracy = 'x'", "a number, or one per column")),
        ("0.1,-1", ("accuracy = '0.1,-1'", "above 0")),
        ("", ("accuracy = ''", "give one number")),
    ],
    "--set": [
        ("batch", ("--set 'batch'", "NAME=VALUE")),
        ("=1", ("--set '=1'", "docs/settings.md")),
        ("nosuch=1", ("nosuch is no setting", "docs/settings.md")),
        ("bacth=1", ("bacth is no setting", "is batch meant?")),
        ("batch=lots", ("batch = 'lots'", "a whole number, at least 1, at most 1000000")),
        ("alpha=0", ("alpha = '0'", "a number, above 0, at most 1")),
        ("directed=maybe", ("directed = 'maybe'", "true or false")),
        ("encoding=xml", ("encoding = 'xml'", "msgpack or json")),
        ("offset=1,inf", ("offset = '1,inf'", "finite")),
        ("kafka_cafile=no.pem", ("kafka_cafile = 'no.pem'", "the path of a file")),
        ("kafka_username=me", ("kafka_username", "kafka_protocol = PLAINTEXT", "choose SASL_SSL")),
    ],
    "--partitions": [("0", ("'0'", "at least 1")), ("many", ("'many'", "a whole number"))],
    "--limit": [("0", ("'0'", "at least 1")), ("x", ("'x'", "a whole number"))],
    "--days": [("1", ("'1'", "at least 2 and at most 365")), ("x", ("'x'", "a whole number"))],
    "--format": [("xml", ("--format 'xml'", "jsonl, csv, msgpack"))],
}


def values_of(path: str, command: Any) -> list[tuple[str, str, tuple[str, ...]]]:
    """(option, bad value, what is said) for every option of a command that takes a value."""
    found = []
    for param in command.params:
        option = param.opts[0]
        if param.param_type_name == "option" and not param.is_flag:
            bad = BAD_OPTIONS.get(option, [("", ("no bad value is known of this option",))])
            few = path == "demo" or (path in SLOW and option in ("--log", "--store"))
            found += [(option, *case) for case in (bad[:1] if few else bad)]
    return found


CASES = [
    pytest.param(path, *case, id=f"{path}-{case[0][2:]}-{case[1]}")
    for path, command in _commands().items()
    for case in values_of(path, command)
]


@pytest.mark.parametrize(("path", "option", "value", "pieces"), CASES)
def test_every_option_with_a_bad_value(
    empty: Path, path: str, option: str, value: str, pieces: tuple[str, ...]
) -> None:
    (empty / "events.jsonl").write_text(ONE)
    args = [*path.split(), *ARGUMENTS.get(path, []), option, value]
    if path in SLOW and option in ("--log", "--store"):
        code, _, said = ended(process(*args, "--features", "1"))
        require_sentence(code, said, *pieces)
    elif path == "doctor" and (option == "--store" or "not a dgdm log" in pieces[0] or value == UNREACHABLE):
        result = dgdm(*args)  # what is wrong is what it was asked for
        require_sentence(result.exit_code, result.stdout, "BAD", *pieces, expected=1)
    else:
        refused(args, *pieces)


def test_every_option_of_every_command_teaches() -> None:
    for path, command in _commands().items():
        assert re.match(r"[A-Z].*[.:]$", command.help.splitlines()[0]), path
        for param in command.params:
            assert len(getattr(param, "help", None) or "") > 10, f"dgdm {path}: {param.opts}"


def test_a_password_is_never_shown(folder: Path) -> None:
    (folder / "c.toml").write_text("kafka_password = 12345\n")
    env = {"DGDM_KAFKA_PASSWORD": "geheim", "DGDM_KAFKA_PROTOCOL": "SASL_SSL"}
    for given in ({}, {"DGDM_KAFKA_PROTOCOL": "PLAINTEXT"}, {"DGDM_FEATURES": "3", "DGDM_ACCURACY": "1,2"}):
        result = dgdm("tail", "--log", f"kafka://{NOBODY}", env=env | given)
        assert result.exit_code == 2
        assert "geheim" not in result.output + result.stderr
    result = dgdm("tail", env={"DGDM_CONFIG": "c.toml"})
    assert "kafka_password = … (from the file that DGDM_CONFIG names): give text" in result.stderr
    assert "12345" not in result.stderr


# -- settings from elsewhere


BAD_SETTINGS = [
    ({"DGDM_BATCH": "x"}, ("batch = 'x' (from DGDM_BATCH)", "a whole number")),
    ({"dgdm_alpha": "2"}, ("alpha = '2' (from dgdm_alpha)", "at most 1")),
    ({"DGDM_ACCURACY": "1,2", "DGDM_FEATURES": "3"}, ("accuracy has 2 columns and features = 3",)),
    ({"DGDM_CONFIG": "no.toml"}, ("DGDM_CONFIG names 'no.toml', which is not a file",)),
    ({"DGDM_CONFIG": ""}, ("DGDM_CONFIG names '', which is not a file",)),
    ({"DGDM_CONFIG": "."}, ("DGDM_CONFIG names '.', which is not a file",)),
    ({"DGDM_CONFIG": "not.toml"}, ("'not.toml'", "cannot be read as TOML", "line 1")),
    ({"DGDM_CONFIG": "binary.toml"}, ("'binary.toml'", "cannot be read as TOML")),
    ({"DGDM_CONFIG": "unreadable.toml"}, ("'unreadable.toml'", "Input/output error")),
    ({"DGDM_CONFIG": "key.toml"}, ("the file that DGDM_CONFIG names", "feature is no setting", "is features meant?")),
    ({"DGDM_CONFIG": "value.toml"}, ("batch = 'x' (from the file that DGDM_CONFIG names)", "a whole number")),
]  # fmt: skip


@pytest.mark.parametrize(("env", "pieces"), BAD_SETTINGS, ids=[str(env) for env, _ in BAD_SETTINGS])
def test_bad_settings_say_where_they_come_from(
    empty: Path, env: dict[str, str], pieces: tuple[str, ...]
) -> None:
    (empty / "not.toml").write_text("batch = = 1\n")
    (empty / "binary.toml").write_bytes(b"\xff\xfe\x00")
    (empty / "unreadable.toml").symlink_to("/proc/self/mem")
    (empty / "key.toml").write_text("feature = 1\n")
    (empty / "value.toml").write_text('batch = "x"\n')
    refused(["tail"], *pieces, env=env)


@pytest.mark.parametrize("path", sorted(set(_commands()) - {"demo"}))  # the demo's settings are its own
def test_every_command_refuses_bad_settings(empty: Path, path: str) -> None:
    args = [*path.split(), *ARGUMENTS.get(path, [])]
    refused(args, "batch = 'x' (from DGDM_BATCH)", env={"DGDM_BATCH": "x"})
    refused(args, "DGDM_CONFIG names 'no.toml'", env={"DGDM_CONFIG": "no.toml"})


def test_a_variable_that_is_nearly_a_setting_is_pointed_out(folder: Path) -> None:
    result = dgdm("topics", "check", env={"DGDM_ACURACY": "1", "DGDM_SERVICE_HOST": "10.0.0.1"})
    assert result.exit_code == 0
    assert "DGDM_ACURACY is no setting, so it is ignored: is DGDM_ACCURACY meant?" in result.stderr
    assert "SERVICE" not in result.stderr


def test_flag_over_environment_over_file(folder: Path) -> None:
    (folder / "c.toml").write_text('graph = "from-file"\nevents_topic = "from.file"\n')
    env = {"DGDM_CONFIG": "c.toml", "DGDM_GRAPH": "from-env"}
    assert "'from-env'" in dgdm("doctor", "--ready", env=env).stdout
    assert "'from-flag'" in dgdm("doctor", "--ready", "--graph", "from-flag", env=env).stdout
    assert "topic from.file does not exist" in dgdm("topics", "check", env=env).stdout


# -- logs, stores and topics that are not what they should be


class Mistake(NamedTuple):
    args: str
    pieces: tuple[str, ...]
    code: int = 2


MISTAKES = [
    Mistake("tail --set embeddings_topic=nope", ("there is no topic 'nope'", "dgdm topics create")),
    Mistake("tail --dead-letters --set dead_letters_topic=nope", ("there is no topic 'nope'",)),
    Mistake("export table.npz --set embeddings_topic=nope", ("there is no topic 'nope'",)),
    Mistake("produce events.jsonl --set events_topic=nope", ("there is no topic 'nope'",)),
    Mistake("produce events.jsonl --wait --set progress_topic=nope", ("there is no topic 'nope'",)),
    Mistake("certify --set progress_topic=nope", ("there is no topic 'nope'",)),
    Mistake("certify", ("dgdm.progress has no record of graph 'default'", "has its worker run?")),
    Mistake("certify --from-log", ("dgdm.progress has no record of graph 'default'",)),
    Mistake("topics create --set events_topic=a,b", ("'a,b' is no topic name", "A-Z a-z 0-9")),
    Mistake("tail --log sqlite:///nowhere.db", ("there is no log", "nowhere.db", "dgdm topics create")),
    Mistake("certify --store sqlite:///events.jsonl", ("no record of graph 'default'",)),
    Mistake(f"doctor --ready --store redis://{NOBODY}/0", (NOBODY, "does not answer")),
    Mistake(f"certify --log kafka://{NOBODY}", (NOBODY, "Connection refused")),
    Mistake("doctor --ready --store sqlite:///no/store.db", ("no/store.db", "directory must exist")),
    Mistake("tail --log kafka://127.0.0.1:1 --set kafka_protocol=SASL_SSL", ("needs a username and a password",)),
    Mistake("tail --set kafka_protocol=SSL", ("TLS and passwords are for kafka://",)),
    Mistake("nosuch", ("No such command 'nosuch'", "dgdm -h")),
    Mistake("tail --nosuch", ("No such option: --nosuch", "dgdm tail -h")),
    Mistake("produce", ("Missing argument", "dgdm produce -h")),
    Mistake("export", ("Missing argument", "dgdm export -h")),
    Mistake("produce nothere.jsonl", ("nothere.jsonl: No such file or directory",)),
    Mistake("produce events.jsonl nothere.jsonl", ("nothere.jsonl: No such file or directory",)),
    Mistake("produce .", (".: Is a directory",)),
    Mistake("produce --format jsonl /proc/self/mem", ("/proc/self/mem: Input/output error",)),
    Mistake("produce events.xyz", ("events.xyz", "cannot tell the format from '.xyz'", "--format")),
    Mistake("produce lines.jsonl", ("lines.jsonl:1: a line is one JSON object: {…}: b'ann,bob'",), 1),
    Mistake("produce cut.jsonl.gz", ("cut.jsonl.gz:1: the file is damaged",), 1),
    Mistake("produce --format msgpack events.jsonl", ("events.jsonl:1: ", "cannot be decoded"), 1),
    Mistake("produce --format csv events.jsonl", ("events.jsonl:1: a line of JSON", "--format jsonl"), 1),
    Mistake("produce weights.csv", ("weights.csv:2: the weight -1.0 is not above 0",), 1),
    Mistake("produce empty.jsonl", ("there is no event in empty.jsonl",), 0),
    Mistake("export table.txt", ("table.txt: write a .npz or a .parquet file",)),
    Mistake("export no/table.npz", ("no/table.npz: there is no folder no",)),
    Mistake("export /proc/table.npz", ("/proc/table.npz: No such file or directory",)),
    Mistake("export folder.npz", ("folder.npz: Is a directory",)),
]  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.args for mistake in MISTAKES])
def test_a_mistake_is_a_sentence(folder: Path, mistake: Mistake) -> None:
    (folder / "events.jsonl").write_text(ONE)
    (folder / "events.xyz").write_text(ONE)
    (folder / "lines.jsonl").write_text("ann,bob\n")
    (folder / "empty.jsonl").write_text("")
    (folder / "weights.csv").write_text("ann,bob,2\nann,eve,-1\n")
    (folder / "cut.jsonl.gz").write_bytes(gzip.compress(ONE.encode() * 1000)[:40])
    (folder / "folder.npz").mkdir()
    refused(mistake.args.split(), *mistake.pieces, expected=mistake.code)


def test_every_command_is_in_the_tables() -> None:
    told = {mistake.args for mistake in MISTAKES} | {str(case.values[0]) for case in CASES}
    for path in _commands():
        assert any(args == path or args.startswith(f"{path} ") for args in told), path


def test_a_name_mistyped_sends_nothing(folder: Path) -> None:
    (folder / "events.jsonl").write_text(ONE)
    refused(["produce", "events.jsonl", "nothere.jsonl"], "nothere.jsonl")
    result = dgdm("produce", "events.jsonl")
    assert "1 events sent, 0 bad lines" in result.stdout


def test_nothing_is_made_where_nothing_was(empty: Path) -> None:
    for args in (["tail"], ["export", "t.npz"], ["produce", "-"]):
        refused(args, "there is no log", "dgdm up")
    result = dgdm("topics", "check")
    assert (result.exit_code, result.stdout.count("does not exist: `dgdm topics create`")) == (1, 4)
    assert not list(empty.iterdir())


def test_a_sentence_is_one_line_however_long(folder: Path) -> None:
    result = dgdm("tail", "--log", "x" * 300)
    assert len(result.stderr.splitlines()) == 1


# -- servers that are others


@pytest.fixture(scope="module")
def web_server() -> Iterator[str]:
    """host:port of something that is neither a Kafka nor a Redis."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_store_that_is_no_redis(folder: Path, web_server: str) -> None:
    refused(
        ["doctor", "--ready", "--store", f"redis://{web_server}/0"],
        web_server,
        "is not a Redis",
        "host and port",
    )


def test_a_worker_whose_metrics_port_is_taken(folder: Path, web_server: str) -> None:
    port = web_server.partition(":")[2]
    code, _, said = ended(process("worker", "--features", "1", "--set", f"metrics_port={port}"))
    require_sentence(code, said, f"metrics_port = {port} cannot be opened", "Address already in use")


@pytest.mark.parametrize("path", ["worker", "up"])
def test_nobody_says_how_many_features_there_are(folder: Path, path: str) -> None:
    code, _, said = ended(process(path))
    require_sentence(code, said, "features is not set", "graph 'default'", "--features 8 or DGDM_FEATURES=8")
    assert "kernels" not in said, "said before anybody waits for them"


def test_a_worker_whose_store_is_away(folder: Path) -> None:
    args = ["worker", "--features", "1", "--store", f"redis://{NOBODY}/0", "--set", "outage_budget=0.1"]
    code, _, said = ended(process(*args))
    require_sentence(code, said, NOBODY, "gave up after 0.1 s", expected=75)


def test_a_worker_without_topics(empty: Path) -> None:
    code, _, said = ended(process("worker", "--features", "1"))
    require_sentence(code, said, "dgdm topics create")
