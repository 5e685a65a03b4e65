import dataclasses

import pytest
import yaml

from pipelines import runs
from pipelines.config import Annealing, Config, config_of, parse, parser
from pipelines.errors import InputError


def read(*argv):
    return config_of(parse(parser("train", "..."), argv))


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
            "dataset must be auto, cifar100, shapes100, tfds:NAME or",
        ),
        (["--learning_rate", "0"], "learning_rate must be above 0. Received: 0"),
        (["--label_smoothing", "1"], "label_smoothing .*below 1. Received: 1"),
        (["--seed", "-3"], "seed must be at least 0"),
        (["--image_size", "8"], "image_size must be at least 16"),
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


def test_what_the_built_in_data_sets_take_by_default_needs_no_word():
    for dataset in ("auto", "cifar100", "shapes100"):
        given = Config(dataset=dataset, batch_size=128, learning_rate=0.2)
        assert given == Config(dataset=dataset)
        assert given.run_name == f"{dataset}-resnet12-log_softmax-s0"
    titles = runs.titles([given, dataclasses.replace(given, batch_size=64)])
    assert titles == ["log_softmax", "log_softmax, batch size 64"]


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
