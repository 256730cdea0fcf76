"""The canonical SAE says what the raw parameters say, on unit-norm rows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from saebench_canon.errors import CanonError
from saebench_canon.plugin.sae import CanonicalSAE
from saebench_canon.saes.fold import fold
from saebench_canon.saes.formats.any_object import canonical

D, M, N = 6, 11, 40


def parameters(seed: int) -> dict[str, Tensor]:
    """Random parameters with row norms between 0.1 and 10 and biases that matter."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    rows = normal(M, D)
    norms = 10 ** (2 * torch.rand(M, 1, generator=g, dtype=torch.float64) - 1)
    return {
        "W_enc": normal(D, M),
        "b_enc": 0.5 * normal(M),
        "W_dec": rows / rows.norm(dim=1, keepdim=True) * norms,
        "b_dec": normal(D),
    }


def inputs(seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed + 1000)
    return torch.randn(N, D, generator=g, dtype=torch.float64)


def check(sae: CanonicalSAE, x: Tensor, codes: Tensor, raw: dict[str, Tensor]) -> None:
    """The canonical codes are the raw codes times row norms, and the reconstruction is the same."""
    norms = raw["W_dec"].norm(dim=1)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(M, dtype=torch.float64))
    torch.testing.assert_close(sae.encode(x), codes * norms)
    torch.testing.assert_close(sae.decode(sae.encode(x)), codes @ raw["W_dec"] + raw["b_dec"])
    sparse = sae.encode_sparse(x)
    torch.testing.assert_close(sparse.dense(), codes * norms)
    assert (sparse.values > 0).all()
    assert torch.equal(sae.encode(x) > 0, codes > 0)


@pytest.mark.parametrize("on_input", [False, True])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_relu_is_folded_exactly(on_input: bool, seed: int) -> None:
    raw, x = parameters(seed), inputs(seed)
    codes = ((x - on_input * raw["b_dec"]) @ raw["W_enc"] + raw["b_enc"]).relu()
    check(fold(**raw, apply_b_dec_to_input=on_input), x, codes, raw)


@pytest.mark.parametrize("on_input", [False, True])
@pytest.mark.parametrize("level", ["vector", "scalar", "negative"])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_jumprelu_keeps_what_is_strictly_above_the_stored_threshold(
    on_input: bool, level: str, seed: int
) -> None:
    raw, x = parameters(seed), inputs(seed)
    threshold = {
        "vector": raw["b_enc"].abs(),
        "scalar": torch.tensor(0.7, dtype=torch.float64),
        "negative": torch.tensor(-1.0, dtype=torch.float64),
    }[level]
    pre = (x - on_input * raw["b_dec"]) @ raw["W_enc"] + raw["b_enc"]
    codes = pre.relu() * (pre > threshold)
    sae = fold(**raw, activation="jumprelu", threshold=threshold, apply_b_dec_to_input=on_input)
    check(sae, x, codes, raw)


@pytest.mark.parametrize("activation", ["relu", "jumprelu", "topk", "gated"])
def test_a_massive_dimension_shared_with_the_decoder_bias_costs_no_digits(activation: str) -> None:
    g = torch.Generator().manual_seed(0)
    d, m, n = 64, 200, 100
    rows = torch.nn.functional.normalize(torch.randn(m, d, generator=g), dim=1)
    b = torch.randn(d, generator=g)
    b[5] = 3_000.0
    active = torch.rand(n, m, generator=g) < 0.05
    x = (active * (1 + torch.rand(n, m, generator=g))) @ rows + b
    bias = torch.full((m,), -0.3)
    more = {
        "relu": {"b_enc": bias},
        "jumprelu": {"b_enc": bias, "threshold": torch.tensor(0.1)},
        "topk": {"b_enc": bias, "k": 8},
        "gated": {"b_gate": bias, "b_mag": bias / 2, "r_mag": torch.zeros(m)},
    }[activation]

    def folded(dtype: torch.dtype) -> CanonicalSAE:
        parameters_in_dtype = {
            k: v.to(dtype) if isinstance(v, Tensor) else v for k, v in more.items()
        }
        return fold(
            W_enc=rows.T.to(dtype), W_dec=rows.to(dtype), b_dec=b.to(dtype),
            apply_b_dec_to_input=True, activation=activation, **parameters_in_dtype,
        )  # fmt: skip

    exact = folded(torch.float64).encode(x.double())
    single = folded(torch.float32)
    for codes in (
        single.encode(x),
        single.encode_sparse(x).dense(),
        folded(torch.float64).to(dtype=torch.float32).encode(x),
    ):
        assert float((codes.double() - exact).abs().max()) < 1e-5


def test_a_pre_activation_at_the_threshold_is_off() -> None:
    weight = torch.ones(1, 1)
    sae = fold(
        W_enc=weight, W_dec=weight, b_dec=torch.zeros(1), b_enc=torch.zeros(1),
        activation="jumprelu", threshold=torch.tensor([0.5]),
    )  # fmt: skip
    assert sae.encode(torch.tensor([[0.5], [0.75]])).tolist() == [[0.0], [0.75]]
    assert sae.encode_sparse(torch.tensor([[0.5], [0.75]])).values.tolist() == [0.75]


@pytest.mark.parametrize("rescale", [False, True])
@given(seed=st.integers(0, 10_000), k=st.integers(1, M))
@settings(max_examples=20, deadline=None)
def test_topk_selects_on_the_scale_it_was_trained_on(rescale: bool, seed: int, k: int) -> None:
    raw, x = parameters(seed), inputs(seed)
    norms = raw["W_dec"].norm(dim=1)
    pre = (x - raw["b_dec"]) @ raw["W_enc"] + raw["b_enc"]
    selected_on = pre * norms if rescale else pre
    selected = torch.zeros_like(pre).scatter(1, selected_on.topk(k, dim=1).indices, 1.0)
    sae = fold(**raw, activation="topk", k=k, rescale=rescale, apply_b_dec_to_input=True)
    check(sae, x, pre.relu() * selected, raw)
    assert sae.encode_sparse(x).counts.sum() <= k * N


@pytest.mark.parametrize("on_input", [False, True])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_gated_keeps_its_two_biases(on_input: bool, seed: int) -> None:
    raw, x = parameters(seed), inputs(seed)
    b_gate = raw.pop("b_enc")
    b_mag, r_mag = torch.sin(3 * b_gate), torch.cos(5 * b_gate)
    pre = (x - on_input * raw["b_dec"]) @ raw["W_enc"]
    codes = (pre + b_gate > 0) * (pre * r_mag.exp() + b_mag).relu()
    sae = fold(
        **raw, activation="gated", b_gate=b_gate, b_mag=b_mag, r_mag=r_mag,
        apply_b_dec_to_input=on_input,
    )  # fmt: skip
    check(sae, x, codes, raw)


@pytest.mark.parametrize("rescale", [False, True])
def test_an_input_scale_is_folded_into_every_activation(rescale: bool) -> None:
    raw, x, s = parameters(3), inputs(3), 2.5
    norms = raw["W_dec"].norm(dim=1)
    pre = (s * x - raw["b_dec"]) @ raw["W_enc"] + raw["b_enc"]
    threshold = torch.tensor(0.4, dtype=torch.float64)
    codes = pre.relu() * ((pre * norms if rescale else pre) > threshold)
    sae = fold(
        **raw, activation="jumprelu", threshold=threshold, rescale=rescale, input_scale=s,
        apply_b_dec_to_input=True,
    )  # fmt: skip
    torch.testing.assert_close(sae.decode(sae.encode(x)), (codes @ raw["W_dec"] + raw["b_dec"]) / s)


def test_codes_are_the_same_in_a_batch_and_alone() -> None:
    raw, x = parameters(5), inputs(5)
    sae = fold(**raw, activation="topk", k=3)
    alone = torch.cat([sae.encode(x[i : i + 1]) for i in range(N)])
    torch.testing.assert_close(alone, sae.encode(x))


def test_many_tokens_are_encoded_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    sae, x = fold(**parameters(7), activation="topk", k=3), inputs(7)
    at_once = sae.encode_sparse(x)
    monkeypatch.setattr("saebench_canon.plugin.sae.CHUNK", 4 * M)
    pieces = sae.encode_sparse(x)
    assert torch.equal(at_once.indptr, pieces.indptr)
    assert torch.equal(at_once.indices, pieces.indices)
    torch.testing.assert_close(at_once.values, pieces.values)


def test_the_encoder_is_on_the_scale_of_the_codes() -> None:
    raw = parameters(8)
    expected = raw["W_enc"] * raw["W_dec"].norm(dim=1)
    for sae in (fold(**raw), fold(**raw, activation="topk", k=2)):
        assert sae.encoder is not None
        torch.testing.assert_close(sae.encoder, expected)


def test_to_changes_precision_everywhere() -> None:
    sae = fold(**parameters(9), activation="topk", k=2).to(dtype=torch.float32)
    assert sae.W_dec.dtype == sae.encode(inputs(9)).dtype == torch.float32
    assert sae.encode_sparse(inputs(9)).values.dtype == torch.float32


def test_half_precision_parameters_are_folded_in_float32() -> None:
    raw = {key: value.bfloat16() for key, value in parameters(10).items()}
    assert fold(**raw).W_dec.dtype == torch.float32


def test_activations_that_do_not_fit_are_refused() -> None:
    sae = fold(**parameters(1))
    with pytest.raises(CanonError, match=r"must have shape \[n, 6\]"):
        sae.encode(torch.zeros(3, 5))
    with pytest.raises(CanonError, match="must be finite"):
        sae.encode_sparse(torch.full((3, D), float("nan")))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("W_dec", torch.zeros(M, D), "only rows of zeros"),
        ("W_dec", torch.full((M, D), float("inf")), "W_dec holds"),
        ("W_enc", torch.zeros(M, D), "W_enc has shape"),
        ("W_enc", torch.full((D, M), float("nan")), "W_enc holds"),
        ("b_dec", torch.zeros(M), "b_dec has shape"),
        ("b_enc", torch.zeros(D), "b_enc has shape"),
    ],
)
def test_a_parameter_that_does_not_fit_is_named(key: str, value: Tensor, says: str) -> None:
    with pytest.raises(CanonError, match=says):
        fold(**{**parameters(1), key: value})


DEAD = (0, 4)  # latents whose decoder row is set to zeros


@pytest.mark.parametrize(
    "kind",
    [
        {"activation": "relu"},
        {"activation": "jumprelu", "threshold": torch.tensor(0.1)},
        {"activation": "topk", "k": 3},
        {"activation": "topk", "k": 3, "rescale": True},
        {"activation": "gated"},
        {"activation": "relu", "apply_b_dec_to_input": True, "input_scale": 3.0},
    ],
    ids=str,
)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_a_latent_with_a_decoder_row_of_zeros_is_dead_and_changes_no_other(
    kind: dict[str, Any], seed: int
) -> None:
    raw, x = parameters(seed), inputs(seed)
    if kind["activation"] == "gated":
        bias = raw.pop("b_enc")
        raw |= {"b_gate": bias, "b_mag": bias, "r_mag": torch.zeros(M, dtype=torch.float64)}
    before = fold(**raw, **kind)
    raw["W_dec"][list(DEAD)] = 0
    sae = fold(**raw, **kind)
    kept = torch.ones(M, dtype=torch.bool)
    kept[list(DEAD)] = False
    assert torch.equal(sae.W_dec[kept], before.W_dec[kept])
    assert (sae.W_dec[~kept] == 0).all()
    sparse = sae.encode_sparse(x)
    assert not sparse.live[~kept].any()
    torch.testing.assert_close(sparse.dense(), sae.encode(x))
    if not kind.get("rescale"):  # there row norms decide which latents are selected
        torch.testing.assert_close(sae.encode(x)[:, kept], before.encode(x)[:, kept])


@pytest.mark.parametrize("k", [None, 0, M + 1])
def test_k_beyond_the_width_is_refused(k: int | None) -> None:
    with pytest.raises(CanonError, match="11 latents"):
        fold(**parameters(1), activation="topk", k=k)


class Plain(nn.Module):
    """Somebody's own ReLU SAE."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        raw = parameters(2)
        for key, value in raw.items():
            setattr(self, key, nn.Parameter(value.to(dtype)))

    def encode(self, x: Tensor) -> Tensor:
        return (x @ self.W_enc + self.b_enc).relu()

    def decode(self, codes: Tensor) -> Tensor:
        return codes @ self.W_dec + self.b_dec


def test_any_object_is_an_sae() -> None:
    plain, x = Plain(), inputs(2).float()
    sae = canonical(plain)
    torch.testing.assert_close(sae.decode(sae.encode(x)), plain.decode(plain.encode(x)))
    torch.testing.assert_close(sae.encode_sparse(x).dense(), sae.encode(x))
    assert sae.encoder is not None
    torch.testing.assert_close(sae.encoder, plain.W_enc * plain.W_dec.norm(dim=1))
    assert not sae.encode(x).requires_grad
    assert canonical(sae) is sae


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)
def test_an_object_gets_activations_in_its_own_precision(dtype: torch.dtype) -> None:
    plain, x = Plain(dtype), inputs(2).float()
    got: list[torch.dtype] = []
    encode = plain.encode
    plain.encode = lambda x: got.append(x.dtype) or encode(x)  # type: ignore[method-assign]
    sae = canonical(plain)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert sae.W_dec.dtype == sae.encode(x).dtype == wide
    assert set(got) == {dtype}
    assert sae.encoder is not None
    theirs = encode(x.to(dtype)).to(wide) * plain.W_dec.to(wide).norm(dim=1)
    torch.testing.assert_close(sae.encode(x), theirs)


def test_plain_tensors_serve_as_parameters_do() -> None:
    plain, bare = Plain(), SimpleNamespace()
    for name in ("W_dec", "b_dec", "W_enc"):
        setattr(bare, name, getattr(plain, name).detach())
    bare.encode, bare.decode = plain.encode, plain.decode
    x = inputs(2).float()
    assert torch.equal(canonical(bare).encode(x), canonical(plain).encode(x))


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr], ids=str)
def test_codes_may_come_sparse(layout: torch.layout) -> None:
    plain, x = Plain(), inputs(2).float()
    dense = canonical(Plain())
    encode = plain.encode
    plain.encode = lambda x: encode(x).detach().to_sparse(layout=layout)  # type: ignore[method-assign]
    plain.decode = lambda codes: codes.to_dense() @ plain.W_dec + plain.b_dec  # type: ignore[method-assign]
    sae = canonical(plain)
    assert torch.equal(sae.encode(x), dense.encode(x))
    assert torch.equal(sae.encode_sparse(x).dense(), dense.encode(x))


@pytest.mark.parametrize("method", ["encode", "decode"])
def test_complex_numbers_of_an_object_are_refused(method: str) -> None:
    plain = Plain()
    answer = getattr(plain, method)
    setattr(plain, method, lambda x: answer(x).to(torch.complex64))
    with pytest.raises(CanonError, match=f"{method} returns complex numbers"):
        canonical(plain)


def test_an_encode_that_works_in_place_leaves_the_activations_alone() -> None:
    plain, x = Plain(), inputs(2).float()

    def encode(x: Tensor) -> Tensor:
        x -= 1
        return (x @ plain.W_enc + plain.b_enc).relu()

    plain.encode = encode  # type: ignore[method-assign]
    sae, before = canonical(plain), x.clone()
    assert torch.equal(sae.encode(x), sae.encode(x))
    assert torch.equal(x, before)


def test_an_encoder_that_is_not_linear_is_none() -> None:
    plain = Plain()
    plain.encode = lambda x: (x @ plain.W_enc + plain.b_enc).relu() ** 2  # type: ignore[method-assign]
    assert canonical(plain).encoder is None


def batch_topk(k: int):  # type: ignore[no-untyped-def]
    def made(plain: Plain) -> object:
        def encode(x: Tensor) -> Tensor:
            pre = (x @ plain.W_enc + plain.b_enc).relu()
            return pre * (pre >= pre.flatten().topk(k * len(x)).values[-1])

        return encode

    return made


def fails(plain: Plain) -> object:
    def method(x: Tensor) -> Tensor:
        raise ValueError("no such shape\nsecond line")

    return method


def dropping(plain: Plain) -> object:
    generator = torch.Generator().manual_seed(0)
    encode = plain.encode
    return lambda x: encode(x) * (torch.rand(len(x), M, generator=generator) < 0.5)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("encode", lambda p: lambda x: x @ p.W_enc, "negative"),
        ("encode", lambda p: lambda x: x, "shape"),
        ("encode", batch_topk(1), "other tokens"),
        ("encode", batch_topk(2), "other tokens"),
        ("encode", batch_topk(5), "other tokens"),
        ("encode", lambda p: lambda x: ((x - x.mean(0)) @ p.W_enc).relu(), "other tokens"),
        ("encode", lambda p: lambda x: ((x @ p.W_enc).relu(), {}), "encode returns a tuple"),
        ("encode", lambda p: lambda x: None, "encode returns a NoneType"),
        ("encode", lambda p: lambda x: (x @ p.W_enc).relu().detach().numpy(), "returns a ndarray"),
        ("encode", lambda p: lambda x: (x @ p.W_enc).relu() / 0, "codes that are not finite"),
        ("encode", dropping, r"two calls of encode.*eval\(\)"),
        ("encode", fails, r"encode of a tensor \[96, 6\] of torch\.float32 fails \(ValueError: no"),
        ("encode", lambda p: 3, "encode of a tensor.*fails"),
        ("decode", fails, r"decode of a tensor \[96, 11\] of torch\.float32 fails"),
        ("decode", lambda p: lambda codes, mean: codes, r"decode of a tensor.*fails \(TypeError"),
        ("decode", lambda p: lambda codes: codes @ p.W_dec, "W_dec plus b_dec"),
        ("decode", lambda p: lambda codes: codes @ p.W_dec * float("nan"), "W_dec plus b_dec"),
        ("W_dec", lambda p: p.W_dec.detach().numpy(), "W_dec is of type ndarray, not a tensor"),
        ("b_dec", lambda p: None, "b_dec is of type NoneType"),
        ("W_dec", lambda p: torch.ones(M, D, dtype=torch.int64), r"W_dec is of torch\.int64"),
        ("W_dec", lambda p: torch.ones(M, D, device="meta"), "W_dec is on the meta device"),
        ("W_dec", lambda p: p.W_dec.detach().T, r"W_dec has shape \[6, 11\]"),
        ("W_dec", lambda p: torch.zeros(M, D), "only rows of zeros"),
        ("W_dec", lambda p: torch.full((M, D), float("nan")), "W_dec holds a value"),
    ],
)
def test_an_object_without_a_canonical_form_is_refused(name, change, says) -> None:  # type: ignore[no-untyped-def]
    plain = Plain()
    changed = SimpleNamespace(**{
        attribute: getattr(plain, attribute)
        for attribute in ("W_enc", "W_dec", "b_dec", "encode", "decode")
    })  # fmt: skip
    setattr(changed, name, change(plain))
    with pytest.raises(CanonError, match=says):
        canonical(changed, name="mine")


def test_an_object_that_is_no_sae_is_refused() -> None:
    with pytest.raises(CanonError, match="the object has no encode"):
        canonical(object())
