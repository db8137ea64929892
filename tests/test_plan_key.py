"""A plan's key changes with everything that the plan depends on."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from engines.bundle import Bundle
from engines.errors import BundleError
from engines.plans.key import BuildOptions, Card, PlanKey, graph_sha256, options_for, plan_key
from engines.plans.prepared import serves
from engines.plans.record import KINDS, make_record, read_record, stem
from tests import tiny_bundle
from tests.plans import KEY, builder, cards, keys, options, refused


@settings(deadline=None, max_examples=50)
@given(keys, keys)
def test_only_equal_keys_have_equal_digests(one: PlanKey, other: PlanKey) -> None:
    assert (one.digest == other.digest) == (one == other)
    again = PlanKey.model_validate_json(one.model_dump_json())
    assert again == one and again.digest == one.digest


@settings(deadline=None, max_examples=30)
@given(st.data(), keys.filter(lambda key: key.card is not None))
def test_every_ingredient_counts(data: st.DataObject, key: PlanKey) -> None:
    other = data.draw(keys.filter(lambda one: one.card is not None))
    assert key.card and other.card
    mixed = [(name, {name: getattr(other, name)}) for name in PlanKey.model_fields]
    for part, kind in (("card", Card), ("options", BuildOptions)):
        mine, theirs = getattr(key, part), getattr(other, part)
        for name in kind.model_fields:
            changed = mine.model_copy(update={name: getattr(theirs, name)})
            mixed.append((f"{part}.{name}", {part: changed}))
    for name, update in mixed:
        whole = key.model_copy(update=update)
        assert (whole.digest == key.digest) == (whole == key), name


@settings(deadline=None, max_examples=50)
@given(options(), st.randoms())
def test_the_order_of_cards_does_not_count(made: BuildOptions, random: Any) -> None:
    named = [*made.compute_capabilities, *made.compute_capabilities[:1]]
    random.shuffle(named)
    fields = made.model_dump() | {"compute_capabilities": named}
    assert BuildOptions.model_validate(fields) == made


@settings(deadline=None, max_examples=50)
@given(cards)
def test_what_a_machine_learnt_serves_all_graphs(card: Card) -> None:
    key = KEY.model_copy(update={"card": card})
    other = key.model_copy(update={"graph_sha256": "2" * 64, "options": BuildOptions(max_batch=1)})
    assert key.without_graph() == other.without_graph() != key


@settings(deadline=None, max_examples=50)
@given(cards)
def test_a_card_that_the_library_can_name_gets_a_plan_of_its_own(card: Card) -> None:
    there = builder()
    named = options_for(there, card).compute_capabilities
    assert named == (
        (card.compute_capability,) if card.compute_capability in there.capabilities else ()
    )
    wanted = KEY.model_copy(update={"options": options_for(there, card), "card": card})
    assert serves(wanted, wanted)


@pytest.mark.parametrize(
    "fields",
    [
        {"best_side_px": 600},
        {"best_side_px": 1600},
        {"max_batch": 9},
        {"max_batch": 0},
        {"precision": "int8"},
        {"compute_capabilities": ("sm_86",)},
        {"workspace": 1},
    ],
)
def test_impossible_options_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BuildOptions.model_validate(fields)


def test_a_key_names_the_graph_of_its_precision(tmp_path: Any) -> None:
    there = builder()
    bundle = Bundle.load("default")
    files = bundle.manifest.files
    half, full = (
        plan_key(bundle, there, BuildOptions(precision=precision)) for precision in ("fp16", "fp32")
    )
    assert half.graph_sha256 == files["model_fp16.onnx"].sha256
    assert full.graph_sha256 == files["model.onnx"].sha256
    assert (half.library, half.library_version) == (there.name, there.version)
    tiny = Bundle.load(tiny_bundle.write(tmp_path / "tiny"))
    with pytest.raises(BundleError, match="precision fp32"):
        graph_sha256(tiny, "fp16")


@settings(deadline=None, max_examples=50)
@given(keys, st.sampled_from(KINDS), st.binary(max_size=50), st.binary(max_size=32))
def test_a_record_is_read_as_it_was_written(
    key: PlanKey, kind: Any, content: bytes, secret: bytes
) -> None:
    record = make_record(key, kind, content, "tiny 1", secret)
    again = read_record(record.rendered())
    assert again == record and again.key == key and again.is_sealed_with(secret)
    assert not again.is_sealed_with(secret + b"1")
    assert stem(again.key, again.kind).startswith(key.digest[:32])


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_anything_else_is_no_record(content: bytes) -> None:
    assert "record" in refused(lambda: read_record(content), "damaged")
