"""What `fold` and `Parameters` take: every array argument in every form, or one sentence."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_formats import D, M, weights
from safetensors.torch import save_file

from saebench_canon.errors import CanonError
from saebench_canon.plugin.ref import Ref
from saebench_canon.saes.activation_words import OF_ACTIVATION
from saebench_canon.saes.checkpoint import CheckpointAdapter, Parameters, checkpoint
from saebench_canon.saes.files import Files
from saebench_canon.saes.fold import fold

Form = Callable[[torch.Tensor], Any]


def arguments(activation: str) -> dict[str, Any]:
    """Every array that an SAE of this activation has; halves of small whole numbers."""
    g = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randint(-4, 5, shape, generator=g) / 2

    everything = {
        "W_enc": draw(D, M), "W_dec": draw(M, D) + 0.25, "b_dec": draw(D), "b_enc": draw(M),
        "activation_mean": draw(D), "threshold": draw(M).abs(), "b_gate": draw(M),
        "b_mag": draw(M), "r_mag": draw(M),
    }  # fmt: skip
    names = {"W_enc", "W_dec", "b_dec", "activation_mean"} | OF_ACTIVATION[activation]
    return {name: everything[name] for name in everything if name in names}


def of(activation: str, **changed: Any) -> Any:
    """The canonical SAE of these arrays."""
    k = {"k": 3} if activation == "topk" else {}
    return fold(**arguments(activation) | changed, activation=activation, **k)  # type: ignore[arg-type]


ARRAYS = sorted({(kind, name) for kind in OF_ACTIVATION for name in arguments(kind)})


def read_only(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    array = tensor.numpy().copy()
    array.setflags(write=False)
    return array


FORMS: dict[str, Form] = {
    "numpy": lambda t: t.numpy(),
    "numpy float16": lambda t: t.numpy().astype(np.float16),
    "numpy float64": lambda t: t.numpy().astype(np.float64),
    "numpy longdouble": lambda t: t.numpy().astype(np.longdouble),
    "numpy big-endian": lambda t: t.numpy().astype(">f4"),
    "numpy backwards": lambda t: t.flip(0).numpy()[::-1],
    "numpy column order": lambda t: np.asfortranarray(t.numpy()),
    "numpy read-only": read_only,
    "list": lambda t: t.tolist(),
    "tuple": lambda t: tuple(t.tolist()),
    "list of tensors": lambda t: [row.numpy() for row in t],
    "float16": lambda t: t.half(),
    "bfloat16": lambda t: t.bfloat16(),
    "float64": lambda t: t.double(),
    "float8": lambda t: t.to(torch.float8_e4m3fn),
    "whole numbers": lambda t: (2 * t).to(torch.int64),
    "parameter": lambda t: torch.nn.Parameter(t),
    "sparse": lambda t: t.to_sparse(),
    "strided": lambda t: torch.stack([t, t], dim=-1)[..., 0],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("activation", "name"), ARRAYS)
def test_every_array_may_have_every_form(activation: str, name: str, form: str) -> None:
    tensor = arguments(activation)[name] if name != "W_dec" else arguments(activation)[name].round()
    tensor = tensor.round() if form == "whole numbers" else tensor
    given = FORMS[form](tensor)
    expected = of(activation, **{name: 2 * tensor if form == "whole numbers" else tensor})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sae = of(activation, **{name: given})
    x = torch.randn(20, D, generator=torch.Generator().manual_seed(1))
    codes = sae.encode(x)
    torch.testing.assert_close(codes.float(), expected.encode(x))
    torch.testing.assert_close(sae.decode(codes).float(), expected.decode(expected.encode(x)))


def test_the_sae_is_in_the_precision_of_its_decoder() -> None:
    arrays = arguments("relu")
    assert fold(**arrays).W_dec.dtype == torch.float32
    assert fold(**arrays | {"W_dec": arrays["W_dec"].tolist()}).W_dec.dtype == torch.float64
    sae = fold(**{name: tensor.half() for name, tensor in arrays.items()})
    assert {sae.W_dec.dtype, sae.b_dec.dtype, sae.encoder.dtype} == {torch.float32}


NO_ARRAYS: dict[str, Form] = {
    "text": lambda t: "W",
    "ragged": lambda t: [[1.0], [1.0, 2.0]],
    "dict": lambda t: {0: t},
    "object": lambda t: object(),
    "None inside": lambda t: [None, *t.tolist()[1:]],
    "complex": lambda t: t.to(torch.complex64),
    "numpy complex": lambda t: t.numpy().astype(np.complex128),
    "bool": lambda t: t > 0,
    "masked": lambda t: np.ma.masked_array(t.numpy(), t.numpy() > 0),
    "meta": lambda t: t.to("meta"),
    "nan": lambda t: torch.full_like(t, torch.nan).tolist(),
    "overflow": lambda t: torch.full_like(t, 1e30).numpy(),
    "other shape": lambda t: t[1:].tolist(),
    "huge int": lambda t: 10**400,
}


@pytest.mark.parametrize("form", NO_ARRAYS)
@pytest.mark.parametrize(("activation", "name"), ARRAYS)
def test_anything_else_is_one_sentence_that_names_it(activation: str, name: str, form: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CanonError) as caught:
            of(activation, **{name: NO_ARRAYS[form](arguments(activation)[name])})
    message = str(caught.value)
    others = "W_enc" if name == "W_dec" else name  # one row less, and W_enc fits it no more
    assert message.startswith((f"{name} ", f"{others} ")), message
    assert "\n" not in message


@pytest.mark.parametrize("activation", OF_ACTIVATION)
def test_what_an_activation_does_not_use_is_refused(activation: str) -> None:
    everything = {name: arguments(kind)[name] for kind, name in ARRAYS}
    for name in sorted(everything.keys() - arguments(activation).keys()):
        with pytest.raises(CanonError, match=f"{name} is given, and activation '{activation}'"):
            of(activation, **{name: everything[name]})


@pytest.mark.parametrize("word", ["ReLU", "tanh", "", None, 3])
def test_an_unknown_activation_is_refused(word: Any) -> None:
    with pytest.raises(CanonError, match="unknown activation"):
        fold(**arguments("relu"), activation=word)


@pytest.mark.parametrize("scale", [0, -1.0, float("nan"), float("inf"), "2", None, [1, 2], True])
def test_an_input_scale_is_one_number_above_0(scale: Any) -> None:
    with pytest.raises(CanonError, match=r"^input_scale "):
        of("relu", input_scale=scale)


@pytest.mark.parametrize("k", [0, -1, M + 1, 2.5, float("nan"), "3", None, True, [1, 2]])
def test_k_is_a_number_of_latents(k: Any) -> None:
    with pytest.raises(CanonError, match=r"^k "):
        fold(**arguments("topk"), activation="topk", k=k)


@pytest.mark.parametrize("number", [np.int64(3), torch.tensor(3), np.float32(3), [3]])
def test_numbers_may_be_of_numpy_and_torch(number: Any) -> None:
    x = torch.randn(9, D, generator=torch.Generator().manual_seed(2))
    expected = fold(**arguments("topk"), activation="topk", k=3, input_scale=3).encode(x)
    sae = fold(**arguments("topk"), activation="topk", k=number, input_scale=number)
    torch.testing.assert_close(sae.encode(x), expected)


@pytest.mark.parametrize("on_input", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("activation", OF_ACTIVATION)
def test_the_mean_is_subtracted_first_and_added_last(
    activation: str, scale: float, on_input: bool
) -> None:
    arrays = arguments(activation)
    mean = arrays.pop("activation_mean")
    how: dict[str, Any] = {"input_scale": scale, "apply_b_dec_to_input": on_input}
    how |= {"activation": activation} | ({"k": 3} if activation == "topk" else {})
    x = torch.randn(30, D, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    arrays = {name: array.double() for name, array in arrays.items()}
    centred, sae = fold(**arrays, **how), fold(**arrays, activation_mean=mean, **how)
    codes = centred.encode(x - mean)
    torch.testing.assert_close(sae.encode(x), codes)
    torch.testing.assert_close(sae.decode(codes), centred.decode(codes) + mean)
    assert (codes > 0).any()


MEANS: dict[str, Form] = {"numpy": lambda t: t.numpy(), "list": lambda t: t.tolist(),
                          "torch": lambda t: t, "bfloat16": lambda t: t.bfloat16()}  # fmt: skip


def adapter_of(**given: Any) -> CheckpointAdapter:
    """A format whose files have weights, and whose function gives the rest."""

    @checkpoint("given", files=["w.safetensors"])
    def given_format(files: Files) -> Parameters:
        w = files.safetensors("w.safetensors")
        w.ignore("mean")
        return Parameters(**{**{name: w[name] for name in weights()}, **given})

    return given_format


def written(folder: Path) -> Ref:
    save_file(weights() | {"mean": torch.ones(D)}, folder / "w.safetensors")
    return Ref.parse(f"given:{folder}")


@pytest.mark.parametrize("form", MEANS)
def test_a_format_may_give_arrays_that_are_in_no_file(tmp_path: Path, form: str) -> None:
    ref, mean = written(tmp_path), torch.arange(D) / 4
    adapter = adapter_of(activation_mean=MEANS[form](mean))
    sae = adapter.load(ref)
    expected = fold(**weights(), activation_mean=mean)
    torch.testing.assert_close(sae.b_dec, expected.b_dec)
    x = torch.randn(9, D, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(sae.encode(x), expected.encode(x))
    other = adapter_of(activation_mean=MEANS[form](mean + 1))
    assert len({format.identity(ref) for format in (adapter, other, adapter_of())}) == 3
    assert adapter.describe(ref) == adapter_of().describe(ref)


def test_a_threshold_may_be_a_number_of_a_configuration(tmp_path: Path) -> None:
    ref = written(tmp_path)
    sae = adapter_of(activation="batchtopk", threshold=0.5).load(ref)
    expected = fold(**weights(), activation="batchtopk", threshold=torch.tensor(0.5))
    x = torch.randn(9, D, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(sae.encode(x), expected.encode(x))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"activation_mean": [0.0] * (D + 1)}, f"activation_mean has shape .* where .{D}. fits"),
        ({"activation_mean": "mean"}, "activation_mean is of .*, not of real numbers"),
        ({"b_enc": {}}, "b_enc holds something other than real numbers"),
        ({"W_dec": None}, "W_dec is missing"),
        ({"activation": "tanh"}, "unknown activation 'tanh'"),
        ({"threshold": 0.5}, "threshold is given, and activation 'relu' does not use it"),
    ],
)
def test_what_a_format_gives_amiss_is_one_sentence(
    tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(CanonError, match=message):
        adapter_of(**given).describe(written(tmp_path))


COMPUTED: dict[str, Callable[[Any, Any], Any]] = {
    "sum": lambda b, mean: b + mean,
    "sum with numpy": lambda b, mean: np.ones(D) + b,
    "difference": lambda b, mean: b - 1,
    "product": lambda b, mean: 2 * b,
    "quotient": lambda b, mean: b / 2,
    "matrix product": lambda b, mean: b @ b,
    "negative": lambda b, mean: -b,
    "part": lambda b, mean: b[1:],
    "number": lambda b, mean: float(b),
}  # fmt: skip


@pytest.mark.parametrize("computed", COMPUTED)
def test_computing_with_what_is_in_a_file_says_what_to_do(tmp_path: Path, computed: str) -> None:
    @checkpoint("sums", files=["w.safetensors"])
    def sums(files: Files) -> Parameters:
        w = files.safetensors("w.safetensors")
        b = COMPUTED[computed](w["b_dec"], w["mean"])
        return Parameters(W_enc=w["W_enc"], W_dec=w["W_dec"], b_enc=w["b_enc"], b_dec=b)

    with pytest.raises(CanonError, match=r"b_dec is still in its file.*activation_mean"):
        sums.describe(Ref.parse(f"sums:{written(tmp_path).target}"))


@pytest.mark.parametrize("name", ["apply_b_dec_to_input", "rescale"])
@pytest.mark.parametrize(
    "value",
    ["false", "True", "", 2, 0.5, None, [True], torch.tensor([True, False]), np.ones(2, bool), {}],
    ids=repr,
)
def test_a_flag_is_true_or_false_and_nothing_else(name: str, value: Any) -> None:
    given = arguments("topk") | {"activation": "topk", "k": 2, name: value}
    with pytest.raises(CanonError, match=f"{name} must be true or false, got ") as caught:
        fold(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [True, 1, np.True_, np.ones(1, bool), torch.tensor(True)])
def test_a_flag_may_be_of_numpy_and_torch(value: Any) -> None:
    given = arguments("topk") | {"activation": "topk", "k": 2}
    x = torch.randn(5, D, generator=torch.Generator().manual_seed(0))
    expected = fold(**given, apply_b_dec_to_input=True).encode(x)
    assert fold(**given, apply_b_dec_to_input=value).encode(x).equal(expected)
