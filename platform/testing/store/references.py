"""What a store promises about references: which there are, which are valid, and how they are listed."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ...errors import ArrayNotFound, StreamNotFound
from ...store.interface import StoreEngine
from .fixtures import FLOAT, OpenStore, StoreFixtures, array_writer, few_inputs, resumed, stream_writer

_TAGS = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], exclude_characters=":"), min_size=1, max_size=200
).filter(lambda tag: len(tag.encode()) <= 200)


class ReferenceConformance(StoreFixtures):
    """`streams`, `arrays`, `listing`, and what cannot be found."""

    def test_outputs_are_found_by_reference(self, store: StoreEngine, open_store: OpenStore) -> None:
        assert store.streams() == store.arrays() == []
        resumed(stream_writer(store, "turbine.t07")).close()
        resumed(array_writer(store, "turbine.t07:spectrum")).close()
        resumed(array_writer(store, "alone:score")).close()
        with open_store() as another:
            assert another.streams() == ["turbine.t07"]
            assert another.arrays() == ["alone:score", "turbine.t07:spectrum"]
            assert another.arrays("turbine.t07") == ["turbine.t07:spectrum"]
            assert another.arrays("unknown") == []
            assert another.stream("turbine.t07").attrs == {"tag": "turbine.t07"}
            assert another.array("turbine.t07:spectrum").reference == "turbine.t07:spectrum"

    def test_another_process_opens_the_store_by_its_address(self, store: StoreEngine, name: str) -> None:
        resumed(stream_writer(store, name)).close()
        with type(store).open(store.address) as another:
            assert another.streams() == [name]

    def test_an_output_that_was_never_resumed_is_not_there(self, store: StoreEngine, name: str) -> None:
        with stream_writer(store, name), array_writer(store, f"{name}:rows"):
            assert store.streams() == store.arrays() == []
            with pytest.raises(StreamNotFound):
                store.stream(name)
            with pytest.raises(ArrayNotFound):
                store.array(f"{name}:rows")

    def test_what_is_missing_is_named(self, store: StoreEngine) -> None:
        with pytest.raises(StreamNotFound, match=r"no\.such"):
            store.stream("no.such")
        with pytest.raises(ArrayNotFound, match=r"no\.such:rows"):
            store.array("no.such:rows")
        assert store.array_uid("no.such:rows") is None
        assert store.array_bytes("no.such:rows") == 0

    @pytest.mark.parametrize("reference", ["", "with:colon"])
    def test_what_cannot_name_a_stream_raises(self, store: StoreEngine, reference: str) -> None:
        with pytest.raises(ValueError, match="cannot name"):
            store.stream_writer(reference, attrs={})

    @pytest.mark.parametrize("reference", ["no colon", "stream:", ":output", "s:" + "x" * 241])
    def test_what_cannot_name_an_array_raises(self, store: StoreEngine, reference: str) -> None:
        with pytest.raises(ValueError, match="cannot name"):
            store.array_writer(reference, dtype=FLOAT, row_shape=(), attrs={})

    @few_inputs
    @given(tags=st.lists(_TAGS, min_size=1, max_size=3, unique=True))
    @example(tags=[".", "..", "...", ".hidden", "a/b", "a%2Fb", "%", "%-", "%41", "A", "~1", "head", " "])
    @example(tags=["風車.第七号機.振動センサー" * 5, "турбина", "é", "e\u0301", "🌀" * 50, "x" * 200])
    def test_any_tag_names_a_stream_of_its_own(self, store: StoreEngine, tags: list[str]) -> None:
        for tag in tags:
            resumed(stream_writer(store, tag)).close()
            resumed(array_writer(store, f"{tag}:spectrum")).close()
            resumed(array_writer(store, f"{tag}:..")).close()
        assert set(tags) <= set(store.streams())
        assert store.streams() == sorted(store.streams())
        for tag in tags:
            assert store.stream(tag).attrs == {"tag": tag}
            assert store.arrays(tag) == [f"{tag}:..", f"{tag}:spectrum"]

    def test_a_listing_gives_pages_in_order(self, store: StoreEngine) -> None:
        names = [f"t{n}" for n in range(7)]
        for name in names:
            resumed(stream_writer(store, name)).close()
            resumed(array_writer(store, f"{name}:rows")).close()
        listing = store.listing()
        first = listing.streams(after="", limit=4)
        assert (first.references, first.more) == (names[:4], True)
        rest = listing.streams(after=first.references[-1], limit=4)
        assert (rest.references, rest.more, rest.matching) == (names[4:], False, 7)
        arrays = listing.arrays(after="t2:rows", limit=3)
        assert (arrays.references, arrays.more) == (["t3:rows", "t4:rows", "t5:rows"], True)
        assert listing.arrays(after="t5:rows", limit=3).references == ["t6:rows"]
        assert listing.streams(after="t6", limit=4).references == []

    def test_a_listing_finds_words_in_any_case(self, store: StoreEngine) -> None:
        for name in ("Farm.T07.blade", "farm.t08.blade", "farm.t07.gearbox"):
            resumed(stream_writer(store, name)).close()
        found = store.listing().streams(after="", limit=9, words=["t07", "BLADE"])
        assert (found.references, found.matching) == (["Farm.T07.blade"], 1)

    def test_arrays_are_ordered_by_their_whole_reference(self, store: StoreEngine) -> None:
        for reference in ("a:x", "a.b:x", "a:b"):
            resumed(array_writer(store, reference)).close()
        assert store.arrays() == ["a.b:x", "a:b", "a:x"]
        assert store.listing().arrays(after="", limit=9).references == ["a.b:x", "a:b", "a:x"]
        assert store.listing().arrays(after="a.b:x", limit=1).references == ["a:b"]

    def test_a_listing_that_is_kept_shows_what_is_new(self, store: StoreEngine, name: str) -> None:
        listing = store.listing()
        assert listing.streams(after="", limit=9).references == []
        assert not listing.may_have_array(f"{name}:rows")
        resumed(stream_writer(store, name)).close()
        with resumed(array_writer(store, f"{name}:rows")) as writer:
            writer.append(np.zeros((1, 3), FLOAT), np.zeros(1, np.int64))
        assert listing.streams(after="", limit=9).references == [name]
        assert listing.may_have_array(f"{name}:rows")
        assert listing.arrays(after="", limit=9).references == [f"{name}:rows"]
