"""What files record of a training, and which SAEs cannot be seeds of one another by it."""

from __future__ import annotations

from typing import Any

import pytest

from saebench_canon.plugin.adapter import Description
from saebench_canon.plugin.training_facts import differing, no_seeds, seeds_recorded, training_facts


def facts(path: str | None = None, **metadata: Any) -> dict[str, Any]:
    return dict(training_facts(Description(8, 16, "relu", metadata=metadata), path))


def test_different_seeds_and_all_else_alike_are_seeds() -> None:
    recorded = [facts(seed=seed, lr=1e-3, trainer={"l1_penalty": 4}) for seed in range(3)]
    assert no_seeds(recorded) is None
    assert seeds_recorded(recorded)
    assert recorded[1]["seed"] == 1


@pytest.mark.parametrize(
    "key",
    ["l1_coefficient", "l1_penalty", "lr", "learning_rate", "training_tokens", "steps", "target_l0",
     "l0_coefficient", "sparsity_penalty", "batch_size", "optimizer_name", "lr_warm_up_steps",
     "dataset_path", "n_epochs", "adam_beta1", "decoder_init_norm", "auxk_alpha", "weight_decay"],
)  # fmt: skip
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("seeds", [(0, 0, 0), (0, 1, 2), None])
def test_what_decides_a_training_tells_saes_apart(
    key: str, nested: bool, seeds: tuple[int, ...] | None
) -> None:
    recorded = []
    for at, value in enumerate((1, 2, 4)):
        setting: dict[str, Any] = {"trainer": {key: value}} if nested else {key: value}
        recorded.append(facts(**setting, **({} if seeds is None else {"seed": seeds[at]})))
    name = f"trainer.{key}" if nested else key
    assert differing(recorded) == [name]
    assert no_seeds(recorded) == f"they differ in {name} (1, 2, 4)"


@pytest.mark.parametrize("key", ["seed", "random_seed", "rng_seed", "init_seed"])
@pytest.mark.parametrize("seeds", [(42, 42, 42), (0, 1, 1), (0, 0, None)])
def test_a_seed_that_is_recorded_twice_is_no_seed(key: str, seeds: tuple[int | None, ...]) -> None:
    recorded = [facts(**({} if seed is None else {key: seed})) for seed in seeds]
    assert no_seeds(recorded) == f"several record the same seed ({1 if 1 in seeds else seeds[0]})"


@pytest.mark.parametrize(
    "key", ["wandb_id", "run_name", "save_path", "device", "last_loss", "sae_lens_version",
            "log_every_steps", "eval_batch_size", "final_mse", "dtype", "n_dead"],
)  # fmt: skip
def test_what_decides_nothing_is_not_compared(key: str) -> None:
    assert no_seeds([facts(seed=at, **{key: at}) for at in range(3)]) is None


@pytest.mark.parametrize(
    ("names", "fact"),
    [
        (("a/average_l0_20", "a/average_l0_71"), "average_l0"),
        (("l1_0.5/sae", "l1_2/sae"), "l1"),
        (("lr_1e-4", "lr_3e-4"), "lr"),
        (("50001920", "100003840"), "checkpoint"),
        (("ae_5000.pt", "ae_10000.pt"), "checkpoint"),
        (("step-100", "step-200"), "step"),
        (("k8", "k16"), "k"),
        (("tokens_50M", "tokens_100M"), "tokens"),
        (("iters_1000/sae", "iters_4000/sae"), "iters"),
    ],
)
def test_names_tell_saes_apart_unless_files_record_seeds(names: tuple[str, ...], fact: str) -> None:
    assert differing([facts(name) for name in names]) == [f"the name's {fact}"]
    assert differing([facts(name, seed=42) for name in names]) == [f"the name's {fact}"]
    seeds = [facts(name, seed=at) for at, name in enumerate(names)]
    assert (no_seeds(seeds) is None) == (fact == "checkpoint")  # a bare number may be a date


@pytest.mark.parametrize("names", [("s0", "s1"), ("seed_10", "seed_2"), ("a", "b")])
def test_names_of_seeds_tell_nothing(names: tuple[str, ...]) -> None:
    recorded = [facts(name) for name in names]
    assert no_seeds(recorded) is None
    assert not seeds_recorded(recorded)


def test_a_measured_l0_may_differ_a_little_between_seeds() -> None:
    assert no_seeds([facts(seed=0, average_l0=71), facts(seed=1, average_l0=73)]) is None
    assert no_seeds([facts(seed=0, target_l0=71), facts(seed=1, target_l0=73)]) is not None
    assert no_seeds([facts(seed=0, average_l0=20), facts(seed=1, average_l0=73)]) is not None


def test_another_hook_model_or_k_is_no_seed() -> None:
    first = Description(8, 16, "topk", k=4, hook="a", model="m")
    for other in (
        Description(8, 16, "topk", k=8, hook="a", model="m"),
        Description(8, 16, "topk", k=4, hook="b", model="m"),
        Description(8, 16, "topk", k=4, hook="a", model="n"),
        Description(8, 16, "relu", k=4, hook="a", model="m"),
    ):
        assert no_seeds([training_facts(first), training_facts(other)]) is not None


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("n_iterations", (1000, 4000)), ("n_batches", (100, 200)), ("iters", (1, 2)),
        ("training_fraction", (0.1, 0.9)), ("data_path", ("a", "b")), ("corpus", ("a", "b")),
        ("lr", (1e-3, None)), ("lr_schedule", ([1] * 9, [2] * 9)),
        ("steps", (list(range(500)), list(range(501)))),
    ],
)  # fmt: skip
def test_what_decides_a_training_is_compared_whatever_its_form(
    key: str, values: tuple[object, object]
) -> None:
    for seeds in ((0, 1), (None, None)):
        recorded = [
            training_facts(Description(8, 16, "relu", metadata={key: value, "seed": seed}))
            for value, seed in zip(values, seeds, strict=True)
        ]
        assert differing(recorded) == [key]


def test_tables_in_a_list_are_read_too() -> None:
    recorded = [
        training_facts(
            Description(8, 16, "relu", metadata={"trainers": [{"penalty": p, "seed": 0}]})
        )
        for p in (1, 2)
    ]
    assert [fact["seed"] for fact in recorded] == [0, 0]
    assert differing(recorded) == ["trainers.0.penalty"]


@pytest.mark.parametrize("where", ["data", "dataset", "eval", "dataloader_shuffle"])
def test_the_seed_of_the_data_is_not_that_of_the_training(where: str) -> None:
    both = {where: {"seed": 7}, "seed": 3}
    assert training_facts(Description(8, 16, "relu", metadata=both))["seed"] == 3
    alone = {where: {"seed": 7}}
    assert "seed" not in training_facts(Description(8, 16, "relu", metadata=alone))
    nested = {"trainer": {"opt": {"seed": 9}}, "run": {"seed": 4}}
    assert training_facts(Description(8, 16, "relu", metadata=nested))["seed"] == 4
