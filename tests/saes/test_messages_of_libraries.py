"""What other libraries say in several lines is told whole, on one line."""

from __future__ import annotations

import pytest
import torch
from huggingface_hub.errors import HFValidationError

from saebench_canon.errors import SAID, CanonError, message_of
from saebench_canon.plugin.ref import Ref
from saebench_canon.saes.formats.any_object import canonical
from saebench_canon.saes.hub_download import hub_errors

MESSAGES = {
    "Couldn't load it from one of:\n (1) a file\n (2) a vocabulary.": "one of: (1) a file (2) a",
    "\n\n401 Client Error.\n\nRepository Not Found for url: x.": "401 Client Error. Repository Not",
    "one line.": "one line",
    "": "Error",
    " \n ": "Error",
}


class Fails:
    """An SAE whose encode fails with a message."""

    W_dec, b_dec = torch.eye(4), torch.zeros(4)

    def __init__(self, message: str) -> None:
        self.message = message

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(self.message)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return codes


@pytest.mark.parametrize("message", MESSAGES)
def test_the_whole_message_is_told(message: str) -> None:
    with pytest.raises(CanonError) as caught:
        canonical(Fails(message))
    assert MESSAGES[message] in str(caught.value)
    with pytest.raises(CanonError) as caught, hub_errors(Ref.parse("saelens://a/b")):
        raise HFValidationError(message)
    assert MESSAGES[message] in str(caught.value)
    assert str(caught.value).startswith("the hub refuses 'saelens://a/b' (")


def test_a_long_message_is_cut_at_a_word() -> None:
    text = message_of(ValueError("many words " * 1000))
    assert len(text) <= SAID
    assert text.endswith("words …")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("It fails. See the log above.", "It fails"), ("It fails at 1.5 above.", None),
        ("Look above!", "ValueError"), ("Details are printed\nabove. It fails!", "It fails!"),
        ("the norm is above 3. It fails", None),
    ],
)  # fmt: skip
def test_a_message_does_not_point_at_what_is_not_printed(message: str, said: str | None) -> None:
    assert message_of(ValueError(message)) == (said or message.rstrip("."))
