"""The command: instant help, clean errors, and what each command prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tilewright import cli, cli_generate, cli_show
from tilewright.bench.checkpoint import Shape, write_checkpoint
from tilewright.bench.result import Result
from tilewright.errors import ArgumentError, TilewrightError
from tilewright.runtime import learner, modes

TINY = Shape(hidden=32, layers=2, heads=4, kv_heads=2, head_dim=16, intermediate=48, vocabulary=256, context=64)
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}bot:{% endif %}"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model folder with random weights, a tokenizer of bytes and a chat template."""
    folder = tmp_path_factory.mktemp("model")
    write_checkpoint(folder, TINY)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    (folder / "generation_config.json").write_text(json.dumps({"temperature": 0.5, "top_k": 7}))
    return str(folder)


@pytest.fixture
def run(command):
    """Run the command with arguments and an optional standard input: (exit code, stdout, stderr)."""
    return command


# ------------------------------------------------------------------------------------------------ help and errors
HELP = {
    "": ("generate", "chat", "show", "doctor", "bench"),
    "book": ("list", "show", "explain", "export", "import", "merge", "verify", "prune"),
}


@pytest.mark.parametrize("group", HELP)
def test_help_imports_nothing_heavy(group):
    program = (
        f"import sys; sys.argv = ['tilewright', *{group.split()}, '--help']\n"
        "from tilewright.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'numpy', 'sqlite3', 'torch', 'llvmlite', 'jinja2', 'tokenizers', 'ml_dtypes'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    for word in HELP[group]:
        assert word in ended.stdout


def test_version(run):
    from tilewright import __version__

    assert run("--version") == (0, __version__ + "\n", "")


@pytest.mark.parametrize(
    "arguments, says",
    [
        (("show", "no_such", "--sizes", "1"), "no operator is called 'no_such'; there are matmul"),
        (("show", "matmul", "--sizes", "1,2"), "sizes 1,2: matmul needs M=.. N=.. K=.., or --sizes with 3 numbers"),
        (("show", "softmax", "--sizes", "1,2", "--dtype", "f33"), "f33"),
        (("generate", "x", "--model", "/no/such/folder"), "/no/such/folder"),
        (("bench", "cpu", "--threads", "0"), "--threads 0"),
        (("generate", "x", "--threads", "0"), "--threads 0: give a whole number from 1 to 4096"),
        (("design", "matmul", "M=-1", "N=2", "K=3"), "'M=-1' is no size; matmul needs its sizes"),
        (("design", "matmul", "M=1", "N=2", "K=3", "--strategy", "magic"), "it is one of evolve, beam, random"),
        (("generat", "x"), "no such command 'generat'. Did you mean 'generate'? `tilewright --help`"),
        (("bench", "nope"), "Did you mean 'rope'? `tilewright bench --help`"),
        (("generate", "x", "--top-k", "many"), "--top-k"),
        (("generate", "x", "--dtype", "f32"), "no such option: --dtype"),
        (("generate", "x", "--seed"), "option '--seed' requires an argument"),
        (("show", "matmul", "--sizes", "1,2,3", "--stage", "foo"), "--stage"),
        (("show", "matmul", "--sizes", "1,2,3", "M=1"), "M=1 and --sizes 1,2,3: leave one of them out"),
        (("show", "matmul"), "matmul needs M=.. N=.. K=.."),
        (("show", "matml", "M=1"), "no operator is called 'matml'; did you mean matmul"),
        (("book", "explain"), "KEY is missing; `tilewright book explain --help` says what there is"),
        (("book", "prune", "--days", "-1"), "--days"),
        (("book", "import", "/no/such/file"), "/no/such/file cannot be read (No such file or directory); give"),
        (("trace", "replay", "/no/such/file"), "(No such file or directory); record one with"),
        (("trace", "record", "x.json", "-m", "no_such_module"), "no module is called 'no_such_module'"),
        (("why", "matmul"), "matmul needs the sizes M, K, N; given: none"),
    ],
)
def test_errors_are_one_line(run, arguments, says):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1
    assert says in err


def test_debug_shows_where_an_error_comes_from(monkeypatch):
    monkeypatch.setenv("DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["tilewright", "show", "no_such", "--sizes", "1"])
    with pytest.raises(ArgumentError):
        cli.main()


def test_a_bad_setting_is_an_error_not_a_loop(run, monkeypatch):
    monkeypatch.setenv("DEBUG", "lots")
    code, _, err = run("bench", "cpu")
    assert code == 2 and err.startswith("error: DEBUG='lots'")


@pytest.mark.parametrize("group", ["", "book"])
def test_a_command_of_commands_alone_shows_its_help(run, group):
    code, out, err = run(*group.split())
    assert code == 2
    assert "Usage: tilewright" in out + err and "error" not in out + err


def test_a_file_with_one_program_need_not_name_it(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import tilewright as tw\n"
        "@tw.kernel\n"
        "def twice(x: tw.Tensor['M', 'D'], y: tw.Tensor['M', 'D']):\n"
        "    for i in tw.parallel('M'):\n"
        "        for d in tw.tiles('D'):\n"
        "            y[i, d] = x[i, d] + x[i, d]\n"
    )
    code, out, _ = run("show", "mine.py", "M=2", "D=3", "--stage", "tile")
    assert code == 0 and out.startswith("kernel twice(")
    assert run("show", "mine.py:twice", "--sizes", "2,3", "--stage", "tile") == (0, out, "")
    code, out, _ = run("why", "mine.py:twice", "M=2", "D=3")
    assert code == 0 and "the generic kernel, design" in out
    assert "`tilewright design mine.py:twice M=2 D=3` does" in out


# --------------------------------------------------------------------------------------------------------- sizes
def test_sizes_by_place_and_by_name():
    dims = ["M", "N", "K"]
    assert cli_show.parse_sizes("1,2,3", dims, "matmul") == {"M": 1, "N": 2, "K": 3}
    assert cli_show.parse_sizes("K=3, M=1, N=2", dims, "matmul") == {"M": 1, "N": 2, "K": 3}


@pytest.mark.parametrize(
    "text", ["", "1,2", "1,2,3,4", "1,2,-3", "1,2,x", "M=1,N=2", "M=1,N=2,L=3", "M=1,2,3", "M=1,M=2,K=3"]
)
def test_bad_sizes(text):
    with pytest.raises(ArgumentError, match=r"M=\.\. N=\.\. K=\.\."):
        cli_show.parse_sizes(text, ["M", "N", "K"], "matmul")


# ------------------------------------------------------------------------------------------------ generate, chat
def test_generate_prints_the_text_and_tells_what_ran(run, model):
    options = ("--model", model, "--max-tokens", "5", "--temperature", "0", "--threads", "1")
    code, out, err = run("generate", "abc", *options)
    assert code == 0
    assert "5 tokens, " in err and "tokens/s, first token after" in err
    assert "kernels: " in err and "matmul" in err and "attention" in err
    code, again, _ = run("generate", *options, stdin="abc")
    assert (code, again) == (0, out)


def test_generate_json(run, model):
    code, out, _ = run("generate", "abc", "--model", model, "--max-tokens", "5", "--seed", "3", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["prompt"] == "abc"
    assert len(found["token_ids"]) == 5 and found["finish_reason"] == "length"
    assert found["timings"]["first_token"] > 0
    assert found["kernels"]["embedding"] == 5
    assert set(found["phases"]) == {"load", "compile", "search", "capture", "first_token"}
    _, out, _ = run("generate", "abc", "--model", model, "--max-tokens", "5", "--seed", "3", "--json")
    assert json.loads(out)["token_ids"] == found["token_ids"]


def test_a_mode_is_that_of_the_process(run, model, monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_MODE", "learn")
    code, out, _ = run("generate", "abc", "--model", model, "--max-tokens", "2", "--mode", "generic", "--json")
    assert code == 0
    assert len(json.loads(out)["token_ids"]) == 2
    assert os.environ["TILEWRIGHT_MODE"] == "generic"
    code, _, error = run("generate", "abc", "--model", model, "--mode", "quick")
    assert code == 2 and "generic" in error


@pytest.mark.parametrize("mode", ["learn", "frozen"])
def test_a_program_that_learns_shows_its_table_while_it_runs(run, model, monkeypatch, mode):
    shown = []

    def publish():
        shown.append("begun")
        return lambda: shown.append("ended")

    monkeypatch.setenv("TILEWRIGHT_MODE", mode)
    monkeypatch.setattr("tilewright.observe.live.publish", publish)
    monkeypatch.setattr(modes, "_learned", False)
    code, _, _ = run("generate", "abc", "--model", model, "--max-tokens", "1", "--mode", mode)
    learner.stop()
    assert code == 0
    assert shown == (["begun", "ended"] if mode == "learn" else [])


def test_options_of_the_model_hold_unless_the_command_line_says_otherwise(model):
    llm = cli_generate._load(model)
    given = {"model": model, "max_tokens": 9, "temperature": None, "top_k": None, "top_p": 0.25, "stop": ["\n"]}
    params = cli_generate._params(llm, given)
    assert (params.temperature, params.top_k, params.top_p) == (0.5, 7, 0.25)
    assert params.max_tokens == 9 and params.stops == ("\n",)


@pytest.mark.parametrize(
    "option, value, says",
    [
        ("--temperature", "-1", "temperature is -1.0"),
        ("--top-k", "-2", "top_k is -2"),
        ("--top-p", "3", "top_p is 3.0"),
        ("--min-p", "2", "min_p is 2.0"),
        ("--repetition-penalty", "0", "repetition_penalty is 0.0"),
        ("--presence-penalty", "3", "presence_penalty is 3.0"),
        ("--frequency-penalty", "-3", "frequency_penalty is -3.0"),
        ("--seed", "-1", "seed is -1"),
        ("--max-tokens", "0", "max_tokens is 0"),
        ("--stop", "", "stop is"),
    ],
)
def test_bad_sampling_value(run, model, option, value, says):
    code, out, err = run("generate", "abc", "--model", model, option, value)
    assert (code, out) == (2, "") and says in err


def test_every_sampling_option_reaches_the_model(run, model, monkeypatch):
    seen = []
    real = cli_generate._params
    monkeypatch.setattr(cli_generate, "_params", lambda llm, given: seen.append(real(llm, given)) or seen[-1])
    options = {
        "max_tokens": 3, "temperature": 0.7, "top_k": 5, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.2,
        "presence_penalty": 0.3, "frequency_penalty": 0.4, "seed": 11,
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    for command, stdin in (("generate", "abc"), ("chat", "abc\n\n")):
        assert run(command, "--model", model, *words, "--stop", "x", "--stop", "y", stdin=stdin)[0] == 0
        assert {name: getattr(seen[-1], name) for name in options} == options
        assert seen[-1].stops == ("x", "y")


def test_a_warning_is_one_line(run, model, monkeypatch, tmp_path):
    (tmp_path / "taken").write_text("a file, no folder")
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(tmp_path / "taken"))
    program = "from tilewright.cli import main; main()"
    words = ["generate", "abc", "--model", model, "--max-tokens", "1"]
    ended = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    warned = [line for line in ended.stderr.splitlines() if str(tmp_path / "taken") in line]
    assert ended.returncode == 0, ended.stderr
    assert warned and all(line.startswith("warning: ") for line in warned)
    assert "CacheWarning" not in ended.stderr


def test_chat_goes_on_until_an_empty_line(run, model):
    options = ("--model", model, "--max-tokens", "3", "--temperature", "0")
    code, _, err = run("chat", *options, stdin="hi\nyou\n\nnot read\n")
    assert code == 0
    assert err.count("kernels:") == 2


def test_chat_needs_a_template_before_the_user_types(run, tmp_path, model):
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(model, bare)
    (bare / "tokenizer_config.json").unlink()
    code, _, err = run("chat", "--model", str(bare), stdin="hi\n")
    assert code == 2 and "no chat template" in err


# -------------------------------------------------------------------------------------------------- show, doctor
@pytest.mark.parametrize("stage", ["tile", "sched", "ll", "asm", "thread"])
def test_show_every_stage(run, stage):
    code, out, err = run("show", "matmul", "--sizes", "1,64,64", "--stage", stage)
    assert (code, err) == (0, "")
    assert len(out) > 100


def test_show_json(run):
    _, out, _ = run("show", "softmax", "--sizes", "D=8,M=2", "--stage", "tile", "--json")
    found = json.loads(out)
    assert found["sizes"] == {"M": 2, "D": 8}
    assert "kernel softmax" in found["text"]


def test_doctor(run):
    code, out, _ = run("doctor", "--json")
    found = json.loads(out)
    assert code == 0 and found["machine"]["cores"] >= 1 and "problems" in found
    code, out, _ = run("doctor")
    assert code == 0 and "llvmlite" in out


# --------------------------------------------------------------------------------------------------------- bench
@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout whose only floor is a ratio of 1, and a bench that measures nothing."""
    from tilewright.bench import cpu

    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "floors.toml").write_text('[[floor]]\nfamily = "rows"\nmetric = "ratio"\nmin = 1.0\n')
    (tmp_path / "README.md").write_text("<!-- bench:cpu -->\n<!-- /bench:cpu -->\n")
    monkeypatch.chdir(tmp_path)
    metrics = dict.fromkeys(("ratio", "ratio_low", "ratio_high", "gbs", "peer_gbs", "bandwidth"), 1.5)
    results = [Result("rows", "softmax f32 4x4", 1, metrics)]
    monkeypatch.setattr(cpu, "measure", lambda request: iter(results))
    return results


def test_bench_saves_and_the_table_follows(run, checkout, tmp_path):
    code, _, err = run("bench", "cpu", "--save")
    assert code == 0 and "softmax f32 4x4" in err and "1.50x" in err and "wrote" in err
    assert run("bench", "table", "--check")[0] == 1
    assert run("bench", "table")[0] == 0
    assert run("bench", "table", "--check")[0] == 0
    assert "| softmax f32 4x4 | 1 |" in (tmp_path / "docs/benchmarks/cpu.md").read_text()


def test_a_quick_look_is_not_saved(run, checkout, tmp_path):
    code, _, err = run("bench", "cpu", "--quick", "--save")
    assert code == 2 and "not evidence" in err
    assert not (tmp_path / "benchmarks" / "results").exists()


def test_help_of_the_bench_names_every_family(run):
    from tilewright.bench.cases import FAMILIES

    code, out, _ = run("bench", "cpu", "--help")
    assert code == 0 and all(family in out for family in FAMILIES)


def test_bench_outside_a_checkout_measures_and_checks_no_floor(run, checkout, tmp_path):
    (tmp_path / "benchmarks" / "floors.toml").unlink()
    code, out, err = run("bench", "cpu", "--json")
    assert code == 0 and "no floors were checked" in err
    assert json.loads(out)["runs"][0]["commit"] is None
    code, _, err = run("bench", "cpu", "--save")
    assert code == 2 and "is not inside a checkout of Tilewright" in err


def test_bench_fails_below_a_floor(run, checkout):
    checkout.append(Result("rows", "rope f32 4x4", 2, {"ratio": 0.5}))
    code, out, err = run("bench", "cpu", "--json")
    assert code == 1
    assert "rope f32 4x4, threads 2: ratio is 0.5, the floor is at least 1" in err
    assert [r["name"] for r in json.loads(out)["results"]] == ["softmax f32 4x4", "rope f32 4x4"]


def test_an_error_of_the_bench_is_one_line(run, checkout, monkeypatch):
    from tilewright.bench import cpu

    def fails(request):
        raise TilewrightError("the worker died")

    monkeypatch.setattr(cpu, "measure", fails)
    code, _, err = run("bench", "cpu", "--json")
    assert code == 2 and "error: the worker died" in err
