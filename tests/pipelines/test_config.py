import contextlib
import dataclasses
import os
import random
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kerasoft import heads
from pipelines import titles
from pipelines.config import GROUPS, Annealing, Config
from pipelines.errors import InputError
from pipelines.options import config_of, config_parser, parse

PARSER = config_parser("train", "...", "...")


def read(*argv):
    return config_of(parse(PARSER, argv))


def test_defaults_need_no_flag():
    assert read() == Config()


def test_flags_win_over_yaml(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("head: gumbel_softmax\ntemperature: 3\nwidth: 8\n")
    config = read("--config", str(file), "--width", "4")
    assert (config.head, config.temperature, config.width) == ("gumbel_softmax", 3, 4)


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(head="gumbel_softmax", temperature=-1.5, noise="always", hard=True),
        Config(
            head="log_gumbel_softmax",
            temperature=Annealing("jang", 3.0, 0.5, update_every=10),
        ),
        Config(head="gumbel_softmax", temperature="learned"),
        Config(head="spherical_softmax", epsilon=0.3),
        Config(dataset="folder:photos"),
        Config(dataset="folder:photos", batch_size=128, learning_rate=0.2),
    ],
    ids=lambda config: config.run_name,
)
def test_yaml_gives_back_the_config_that_wrote_it(tmp_path, config):
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml())
    assert read("--config", str(file)) == config
    assert set(yaml.safe_load(config.to_yaml())) == {
        field.name for field in dataclasses.fields(Config)
    }


def test_a_temperature_is_learned_by_a_flag():
    config = read("--head=gumbel_softmax", "--temperature=learned")
    assert config.temperature == "learned"


def test_annealing_by_flags():
    config = read(
        "--head=gumbel_softmax",
        "--temperature.kind=cosine",
        "--temperature.start=3",
        "--temperature.end=0.5",
    )
    assert config.temperature == Annealing("cosine", 3.0, 0.5)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--head", "log_sofmax"], "did you mean log_softmax"),
        (["--widht", "8"], "no option widht; did you mean width"),
        (["--width", "abc"], "width must be int. Received: abc"),
        (["--width", "0"], "width must be at least 1. Received: 0"),
        (["--steps_per_epoch", "0"], "steps_per_epoch must be at least 1"),
        (
            ["--steps_per_epoch", "7", "--steps_per_execution", "2"],
            r"a multiple of steps_per_execution \(2\)",
        ),
        (["--epochs", "-1"], "epochs must be at least 1. Received: -1"),
        (["--head=gumbel_softmax", "--temperature=0"], "temperature must be .*not 0"),
        (["--head=gumbel_softmax", "--temperature=nan"], "temperature .*Received: nan"),
        (["--head=gumbel_softmax", "--temperature=hot"], "temperature .*Received: hot"),
        (["--temperature", "2"], "temperature belongs to the Gumbel heads"),
        (["--hard", "true"], "hard belongs to gumbel_softmax"),
        (["--epsilon", "0.1"], "epsilon belongs to spherical_softmax"),
        (["--head=spherical_softmax", "--epsilon=0"], "epsilon must be above 0.*: 0"),
        (["--noise", "loud"], "noise must be .*always.*Received: loud"),
        (
            ["--dataset", "cifar1000"],
            "dataset must be auto, cifar100, shapes100, tfds:NAME, folder:PATH,",
        ),
        (["--learning_rate", "0"], "learning_rate must be above 0. Received: 0"),
        (["--label_smoothing", "1"], "label_smoothing .*below 1. Received: 1"),
        (["--validation_share", "0"], "above 0 and at most 0.5. Received: 0"),
        (["--schedule", "step"], "schedule must be .*linear.*Received: step"),
        (
            ["--dataset=glyphs", "--validation_share=0.2"],
            "validation_share cannot be set with glyphs",
        ),
        (["--seed", "-3"], "seed must be at least 0"),
        (["--image_size", "8"], "image_size must be at least 16"),
        (["--image_size", "64"], "image_size belongs to folder:PATH and tfds:NAME"),
        (
            ["--epochs=3", "--warmup_epochs=3"],
            "warmup_epochs must be below the 3 epochs of the run. Received: 3",
        ),
        (
            [
                "--head=gumbel_softmax",
                "--temperature.kind=cosine",
                "--temperature.start=3",
                "--temperature.end=1",
                "--temperature.update_every=10",
            ],
            "temperature must anneal .*update_every .*only for jang",
        ),
        (["--padding", "16"], "padding must be below 16 pixels. Received: 16"),
        (["--optimizer", "adamx"], "optimizer must be .*muon.*Received: adamx"),
        (
            ["--backbone=plain_cnn", "--dropblock=0.1"],
            "dropblock belongs to .*resnet12",
        ),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (
            [
                "--head=gumbel_softmax",
                "--temperature.kind=linear",
                "--temperature.start=3",
                "--temperature.end=-1",
            ],
            "temperature must anneal between two finite numbers of one sign",
        ),
        (
            [
                "--head=gumbel_softmax",
                "--temperature.kind=wavy",
                "--temperature.start=3",
                "--temperature.end=1",
            ],
            "temperature must be .*Received: .*wavy",
        ),
    ],
)
def test_bad_flags_get_one_sentence(argv, says):
    with pytest.raises(InputError, match=says) as caught:
        read(*argv)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("widht: 8", "no option widht; did you mean width"),
        ("width: [8]", "width must be int"),
        ("width: 0", "width must be at least 1"),
        ("width: [: 8", "config"),
        ("head: {name: softmax}", "head must be str"),
    ],
)
def test_bad_yaml_gets_one_sentence(tmp_path, text, says):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        read("--config", str(file))
    assert "\n" not in str(caught.value)


HUGE = "1" * 400


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed: ~", "seed must not be null; without it, it is 0"),
        ("hard:", "hard must not be null"),
        ("seed: " + "1" * 290, "seed must be .*below"),
        ("learning_rate: " + HUGE, "line 1: no number has 400 digits"),
        ("learning_rate: .nan", "learning_rate must be finite.*nan"),
        ("learning_rate: 1e400", "learning_rate must be finite.*inf"),
        ("seed: true", "seed must be int"),
        ("config: {head: softmax}", "config: .* options by name, and no `config`"),
        ("\nseed: !!timestamp x", r"line 2: .* tags \(!!\) are not read"),
        ("dataset: !!binary aGVsbG8=", "tags"),
        ("seed: !!set {a, b}", "tags"),
        ("temperature: &t {kind: linear, start: 1, end: 2, x: *t}", "anchors"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nseed: [*b, *b]", "anchors"),
        ("seed: *a", "undefined alias"),
        ("seed: " + "[" * 5000, "at most 16 levels"),
        ("seed: " + "[" * 50 + "]" * 50, "at most 16 levels"),
        ('dataset: "folder:a\\0b"', r"must be text.* Received: folder:a\\x00b"),
        (
            'dataset: "folder:\\ud800"',
            r"dataset must be text.* Received: folder:\\ud800",
        ),
        ("dataset: folder:" + "x" * 5000, "dataset must be text of at most 1,000 char"),
        ("head: " + "x" * 900, "head: There is no head"),
        ("1: 2", "a key must be a string"),
        ("[1]: 2", "a key must be a string"),
        ("seed: 1\nseed: 2", "line 2: the key seed stands there twice"),
        ("", "must hold options by name"),
        ("- seed", "must hold options by name"),
        ("seed: 1\n---\nseed: 2", "another document"),
        ("seed: 1\0", "cannot be read"),
        ("#" * 200_000, "larger than 32,768 bytes"),
    ],
    ids=lambda text: text[:20],
)
def test_yaml_of_other_kinds_is_refused(tmp_path, text, says):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        read("--config", str(file))
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value).replace(str(file), "")) <= 310


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--seed", "null"], "seed must be int. Received: None"),
        (["--epochs", HUGE], "epochs must be .*below"),
        (["--learning_rate", HUGE], "must be float . None. Received: 111"),
        (["--seed", "!!timestamp x"], "seed: .*tags"),
        (["--temperature", "&t {kind: linear, start: 1, x: *t}"], "anchors"),
        (["--print_config=--"], 'A flag has -- for its value|Invalid option "--"'),
        (["--" + "x" * 900, "1"], "There is no option xxx"),
    ],
    ids=lambda text: str(text)[:20],
)
def test_flags_of_other_kinds_are_refused(argv, says):
    with pytest.raises(InputError, match=says) as caught:
        read(*argv)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) <= 310


@pytest.mark.parametrize("kind", ["pipe", "folder", "latin"])
def test_only_text_files_are_read(tmp_path, kind):
    path = tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"dataset: caf\xe9")
    with pytest.raises(InputError, match=f"config: {re.escape(str(path))} cannot be"):
        read("--config", str(path))


def test_numbers_may_be_written_with_an_exponent(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("learning_rate: 1e-3\nweight_decay: 1.5E-3\nmixup: 1")
    config = read("--config", str(file))
    assert (config.learning_rate, config.weight_decay, config.mixup) == (1e-3, 15e-4, 1)


FIELDS = [field.name for field in dataclasses.fields(Config)]
SCRAPS = ["~", ".inf", "{a: 1}", "[x]", "!!", "&a", "*a", '"\\0"', "true", "-", HUGE]


@given(
    st.lists(st.sampled_from(FIELDS + ["config", "temperature.kind"]), min_size=1),
    st.lists(st.sampled_from(SCRAPS) | st.text(max_size=8), min_size=1),
    st.booleans(),
)
def test_any_options_are_a_config_or_bad_input(tmp_path_factory, names, values, flags):
    pairs = list(zip(names, values, strict=False))
    if flags:
        argv = [f"--{name}={value}" for name, value in pairs]
    else:
        file = tmp_path_factory.mktemp("any") / "any.yaml"
        text = "".join(f"{name}: {value}\n" for name, value in pairs)
        file.write_bytes(text.encode("utf-8", "replace"))
        argv = ["--config", str(file)]
    with contextlib.suppress(InputError):
        read(*argv)


@pytest.mark.slow
def test_broken_files_are_a_config_or_bad_input(tmp_path):
    draws, file = random.Random(0), tmp_path / "broken.yaml"
    annealing = Annealing("jang", 3.0, 0.5)
    whole = Config("log_gumbel_softmax", annealing).to_yaml().encode()
    for _ in range(1500):
        text = bytearray(whole)
        for _ in range(draws.choice([1, 2, 5])):
            place = draws.randrange(len(text))
            text[place : place + draws.randrange(4)] = draws.choice(
                [
                    b"&",
                    b"*",
                    b"!!",
                    b"{",
                    b"[",
                    b"~",
                    b"\0",
                    b"\xff",
                    b"\n",
                    b": ",
                    b"9",
                ]
            )
        file.write_bytes(text)
        with contextlib.suppress(InputError):
            read("--config", str(file))


def test_what_the_built_in_data_sets_take_by_default_needs_no_word():
    for dataset in ("auto", "cifar100", "shapes100"):
        given = Config(dataset=dataset, batch_size=128, learning_rate=0.2)
        assert given == Config(dataset=dataset)
        assert given.run_name == f"{dataset}-resnet12-log_softmax-s0"
    shown = titles.titles([given, dataclasses.replace(given, batch_size=64)])
    assert shown == ["log_softmax", "log_softmax, batch size 64"]


def test_run_names_tell_runs_apart():
    configs = [
        Config(dataset="cifar100"),
        Config(dataset="cifar100", seed=1),
        Config(dataset="cifar100", label="coarse"),
        Config(dataset="cifar100", loss="as_logits"),
        Config(dataset="cifar100", width=8),
        Config(dataset="shapes100"),
        Config(dataset="folder:/a/photos"),
        Config(dataset="folder:/a/photos", batch_size=128),
        Config(dataset="folder:/a/photos", learning_rate=0.2),
        Config(dataset="cifar100", head="gumbel_softmax"),
        Config(dataset="cifar100", head="gumbel_softmax", temperature=3.0),
        Config(dataset="cifar100", head="gumbel_softmax", temperature=-1.5),
        Config(
            dataset="cifar100",
            head="gumbel_softmax",
            temperature=Annealing("linear", 3, 1),
        ),
        Config(dataset="cifar100", head="gumbel_softmax", temperature="learned"),
        Config(dataset="cifar100", strategy="mirrored"),
        Config(dataset="cifar100", optimizer="muon"),
    ]
    names = [config.run_name for config in configs]
    assert len(set(names)) == len(names)
    assert names[0] == "cifar100-resnet12-log_softmax-s0"
    assert not any("/" in name for name in names)


def test_a_config_leaves_the_random_generators_alone():
    before = random.getstate()
    Config(head="gumbel_softmax", temperature=0.5)
    assert random.getstate() == before


def test_the_help_has_every_option_once_in_a_group_with_its_default():
    text = PARSER.format_help()
    fields = dataclasses.fields(Config)
    assert {name for names in GROUPS.values() for name in names.split()} == {
        field.name for field in fields
    }
    for field in fields:
        assert len(re.findall(rf"^  --{field.name}[ ,\n]", text, re.MULTILINE)) == 1
        if field.default is not None:
            described = re.split(r"\n  --", text.partition(f"\n  --{field.name} ")[2])[
                0
            ]
            assert f"default: {field.default}" in " ".join(described.split())
    assert all(f"\n{title}:\n" in text for title in GROUPS)
    assert "<class" not in text
    assert "null" not in text


def test_the_help_names_every_head():
    text = " ".join(PARSER.format_help().split())
    assert all(f"`{name}`" in text for name in heads.HEADS)


def test_runs_that_differ_have_names_that_differ():
    jang = Annealing("jang", 3.0, 1.0)
    base = Config(head="gumbel_softmax", temperature=jang, steps_per_epoch=1_234_567)
    changes = [
        {"temperature": dataclasses.replace(jang, update_every=500)},
        {"temperature": dataclasses.replace(jang, end=1.0000001)},
        {"temperature": 1.0},
        {"temperature": 1.0000001},
        {"steps_per_epoch": 1_234_568},
    ]
    configs = [base, *(dataclasses.replace(base, **change) for change in changes)]
    assert len({config.run_name for config in configs}) == len(configs)
    assert "-tjang-3-1-" in base.run_name
