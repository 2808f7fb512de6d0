"""What a manifest must be to be read: no less than its schema says of the kinds of its values."""

import copy
import importlib.resources
import json

import forged
import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfzip.errors import CorruptError
from tfzip.manifest import check_manifest, parse_manifest
from tfzip.options import Options


@pytest.fixture(scope="module", params=[{}, {"task": "multilabel", "threshold": 0.2, "layout": "tfx"}], ids=str)
def manifest(request, tmp_path_factory):
    return forged.make_export(tmp_path_factory.mktemp("manifest") / "out", **request.param).manifest


@pytest.fixture(scope="module")
def schema():
    text = (importlib.resources.files("tfzip.schemas") / "manifest.schema.json").read_text()
    return jsonschema.Draft202012Validator(json.loads(text))


def places(value, above=()):
    """Every place in a manifest: the keys that lead to it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*above, key)
        yield from places(item, (*above, key))


def changed(manifest, place, value):
    """A manifest with another value at a place, or with none if it is `places`."""
    manifest = copy.deepcopy(manifest)
    *above, last = place
    holder = manifest
    for key in above:
        holder = holder[key]
    if value is places:
        del holder[last]
    else:
        holder[last] = value
    return manifest


def is_taken(manifest):
    try:
        check_manifest(manifest)
    except CorruptError:
        return False
    return True


VALUES = [None, True, False, -1, 10**30, 0.5, [], {}, [None], {"x": 1}]


def test_a_value_of_another_kind_is_refused_wherever_the_schema_refuses_it(manifest, schema):
    assert is_taken(manifest)
    assert schema.is_valid(manifest)
    for place in places(manifest):
        for value in VALUES:
            forgery = changed(manifest, place, value)
            assert schema.is_valid(forgery) or not is_taken(forgery), (place, value)


def test_whatever_the_schema_requires_must_be_there(manifest, schema):
    for place in places(manifest):
        forgery = changed(manifest, place, places)
        assert schema.is_valid(forgery) or not is_taken(forgery), place


@pytest.mark.parametrize(("option", "most"), [("shuffle", 2**128), ("limit", 2**62), ("batch_size", 2**31 - 1)])
def test_the_largest_that_an_option_takes_is_taken(manifest, schema, option, most):
    Options(**{option: most})
    assert is_taken(changed(manifest, (option,), most))
    assert schema.is_valid(changed(manifest, (option,), most))


@pytest.mark.parametrize("key", ["", "image/other", "image/filename", "image/format", "prediction/texts"])
def test_images_are_in_no_feature_but_one_that_may_hold_them(manifest, key):
    for image in ("keep", "none", "jpeg:90"):
        assert not is_taken(changed(changed(manifest, ("image_key",), key), ("image",), image))


SELECTION = {"rules": {"min_confidence": 0.9}, "from": [{"name": "images", "records": 3}]}


@pytest.mark.parametrize("place", [("rules",), ("from",), ("from", 0), ("from", 0, "name"), ("from", 0, "records")])
def test_a_selection_is_one_where_there_is_one(manifest, place):
    selected = {**manifest, "selection": SELECTION}
    assert is_taken(selected)
    assert not is_taken(changed(selected, ("selection", *place), -1))
    if place[-1] != 0:
        assert not is_taken(changed(selected, ("selection", *place), places))
    assert not is_taken({**manifest, "selection": []})


def test_keys_of_later_versions_are_left_alone(manifest):
    for place in ((), ("model",), ("counts",), ("shards", 0), ("labels",)):
        assert is_taken(changed(manifest, (*place, "news"), {"x": [1]}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_no_change_of_a_manifest_does_more_than_to_be_refused(manifest, data):
    place = data.draw(st.sampled_from(list(places(manifest))))
    is_taken(parse_manifest(json.dumps(changed(manifest, place, data.draw(JSON)))))


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=40) | JSON.map(json.dumps))
def test_any_text_is_a_manifest_or_is_refused(text):
    try:
        manifest = parse_manifest(text)
    except CorruptError:
        return
    assert not is_taken(manifest)
