"""Settings: read once, checked, and clear about what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from relens import config
from relens.errors import BadInput, Missing


@pytest.fixture
def home(tmp_path: Path) -> config.Home:
    return config.Home(tmp_path)


def write(home: config.Home, text: str) -> None:
    home.file.write_text(text)


def test_a_home_that_was_never_made_says_how_to_make_one(home):
    with pytest.raises(Missing, match="no home") as caught:
        config.load(home)
    assert "relens init" in caught.value.hint


def test_the_template_is_valid_and_changes_nothing(home):
    write(home, config.template())
    assert config.load(home) == config.Settings()


def test_the_template_with_everything_uncommented_is_the_default(home):
    lines = [
        line.replace("# ", "", 1) if ": " in line and "#" in line else line for line in config.template().splitlines()
    ]
    write(home, "\n".join(line for line in lines if not line.startswith(("Settings", "Environment", "#"))))
    assert config.load(home) == config.Settings()


def test_the_environment_goes_before_the_file(home, monkeypatch):
    write(home, "server:\n  port: 9001\n  queue: 3\n")
    monkeypatch.setenv("RELENS__SERVER__PORT", "9002")
    server = config.load(home).server
    assert (server.port, server.queue) == (9002, 3)


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ("sever:\n  port: 1\n", "sever", "server"),
        ("imports:\n  pack-size: 3\n", "imports.pack-size", "imports.pack_size"),
        ("models:\n  serve:\n    boots:\n      lables: {}\n", "models.serve.boots.lables", "models.serve.boots.labels"),
        (
            "models:\n  serve:\n    boots:\n      traffic: {split: {1: 1}, shado: 2}\n",
            "models.serve.boots.traffic.shado",
            "models.serve.boots.traffic.shadow",
        ),
        (
            "models:\n  serve:\n    traffic:\n      traffic: {split: {1: 1}, rollback: {error: 0.1}}\n",
            "models.serve.traffic.traffic.rollback.error",
            "models.serve.traffic.traffic.rollback.errors",
        ),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(home, text, key, near):
    write(home, text)
    with pytest.raises(BadInput) as caught:
        config.load(home)
    assert caught.value.code == "config.unknown-key"
    assert key in caught.value.message
    assert near in caught.value.hint


@pytest.mark.parametrize("text", ["server:\n  port: many\n", "imports:\n  pack_size: 0\n", "logs:\n  level: loud\n"])
def test_a_bad_value_names_its_key(home, text):
    write(home, text)
    with pytest.raises(BadInput) as caught:
        config.load(home)
    section, values = next(iter(yaml.safe_load(text).items()))
    assert f"{section}.{next(iter(values))}" in caught.value.message


def test_each_served_model_may_have_options_of_its_own(home):
    write(
        home,
        "models:\n  folder: m\n  serve:\n    boots: {latest: all, labels: {stable: 2}}\n    bags: {specific: [1, 3]}\n",
    )
    models = config.load(home).models
    assert models.serve["boots"] == config.ServedModel(latest="all", labels={"stable": 2})
    assert models.serve["bags"].specific == (1, 3)


def test_versions_that_share_requests_are_named_by_label_or_number(home):
    write(
        home,
        "models:\n  serve:\n    boots:\n      labels: {stable: 2}\n"
        "      traffic: {split: {stable: 90, 3: 10}, shadow: 4, rollback: {errors: null, latency: 2}}\n",
    )
    traffic = config.load(home).models.serve["boots"].traffic
    assert list(traffic.split.items()) == [("stable", 90), ("3", 10)]
    assert traffic.shadow == "4"
    assert traffic.rollback == config.Rollback(errors=None, latency=2.0, requests=200)


@pytest.mark.parametrize(
    ("traffic", "said"),
    [
        ("{split: {Stable: 1, canary: 1}}", "names canary, which is neither a number nor one of the labels (Stable)"),
        ("{split: {Stable: 1}, shadow: other}", "names other"),
        ("{split: {Stable: 1}, shadow: Stable}", "shadow is the stable version"),
        ("{split: {Stable: 0, 3: 0}}", "no version with a weight over 0"),
        ("{split: {}}", "no version with a weight over 0"),
        ("{split: {Stable: 1, 3: -1}}", "traffic.split.3: input should be greater than or equal to 0"),
        ("{split: {Stable: .inf}}", "traffic.split.Stable: input should be a finite number"),
        ("{shadow: 3}", "traffic.split: field required"),
        ("{split: {Stable: 1}, rollback: {errors: 2}}", "traffic.rollback.errors: input should be less than"),
        ("{split: {Stable: 1}, rollback: {requests: 0}}", "traffic.rollback.requests: input should be greater than"),
    ],
)
def test_traffic_that_cannot_be_is_refused(home, traffic, said):
    write(home, f"models:\n  serve:\n    boots:\n      labels: {{Stable: 2}}\n      traffic: {traffic}\n")
    with pytest.raises(BadInput) as caught:
        config.load(home)
    assert caught.value.code == "config.bad-value"
    assert caught.value.message.startswith("models.serve.boots")
    assert said in caught.value.message


@pytest.mark.parametrize("text", ["- a\n", "a: [\n", "just text\n"])
def test_what_is_no_settings_file_is_said_to_be_none(home, text):
    write(home, text)
    with pytest.raises(BadInput) as caught:
        config.load(home)
    assert caught.value.code == "config.not-yaml"
    assert str(home.file) in caught.value.message


def test_settings_cannot_be_changed(home):
    write(home, "")
    with pytest.raises(ValueError, match="frozen"):
        config.load(home).server.port = 1
