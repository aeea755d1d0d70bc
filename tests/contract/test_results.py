"""Every result survives JSON: what a program reads back is what was measured."""

from __future__ import annotations

import inspect
import json
import math
import types
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from townlet_train import results
from townlet_train.files import to_json
from townlet_train.render import as_document
from townlet_train.results import EvaluationDTO, Measurement, ResultDTO

MODELS: dict[str, type[BaseModel]] = {
    name: model
    for name, model in vars(results).items()
    if inspect.isclass(model) and issubclass(model, BaseModel) and model is not BaseModel
}


def instances(model: type[BaseModel]) -> st.SearchStrategy[Any]:
    """Instances of a result with any values its fields allow, numbers finite."""
    return st.builds(model, **{name: values(field) for name, field in model.model_fields.items()})


def values(field: FieldInfo) -> st.SearchStrategy[Any]:
    """Anything a field allows."""
    return _of(field.annotation, tuple(field.metadata))


def _of(annotation: Any, limits: tuple[Any, ...] = ()) -> st.SearchStrategy[Any]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return st.one_of(*(st.none() if item is type(None) else _of(item, limits) for item in arguments))
    if origin is tuple and arguments[-1] is not Ellipsis:
        return st.tuples(*map(_of, arguments))
    if origin is tuple:
        return st.lists(_of(arguments[0]), max_size=2).map(tuple)
    if origin is dict:
        return st.dictionaries(_of(arguments[0]), _of(arguments[1]), max_size=2)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return instances(annotation)
    kind: Any = Annotated[(annotation, *limits)] if limits else annotation
    drawn = st.from_type(kind)
    return drawn.filter(math.isfinite) if annotation is float else drawn


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_result_is_the_same_after_json(name: str, data: st.DataObject) -> None:
    result = data.draw(instances(MODELS[name]))
    assert MODELS[name].model_validate_json(result.model_dump_json()) == result
    assert MODELS[name].model_validate_json(to_json(as_document(result))) == result


@pytest.mark.parametrize("name", MODELS)
def test_a_result_cannot_be_changed_and_knows_no_other_field(name: str) -> None:
    config = MODELS[name].model_config
    assert (config.get("frozen"), config.get("extra")) == (True, "forbid")


@pytest.mark.parametrize(
    "name", [name for name in MODELS if name.endswith("DTO") and issubclass(MODELS[name], ResultDTO)]
)
def test_a_document_says_its_schema_and_its_warnings(name: str) -> None:
    assert list(MODELS[name].model_fields)[:2] == ["schema_version", "warnings"]


def test_what_was_not_measured_is_null_and_flagged() -> None:
    result = EvaluationDTO(
        policy="random", env="town", deterministic=False, seeds=(1, 2), episode_returns=(math.nan, 1.0),
        mean=math.nan, iqm=1.0, ci_low=-math.inf, ci_high=1.0,
    )  # fmt: skip
    document = json.loads(to_json(as_document(result)))
    assert (document["mean"], document["ci_low"], document["episode_returns"]) == (None, None, [None, 1.0])
    assert document["non_finite"] == ["/episode_returns/0", "/mean", "/ci_low"]
    with pytest.raises(ValidationError, match="non_finite"):
        EvaluationDTO.model_validate(document)


def test_the_flag_reaches_numbers_deep_inside() -> None:
    measured = {"expert": {"return": Measurement(mean=math.nan, low=0, high=1).model_dump(mode="json")}}
    assert json.loads(to_json(measured))["non_finite"] == ["/expert/return/mean"]
