"""What the items of a collection are called in tables and in files of labels."""

from models.sources import normal
from service.collections.records import Item
from service.commands.item_names import ids_by_name, names_of


def item(key: int, id: str, file: str | None) -> Item:
    return Item(key, id, "0" * 64, file, 1.0, {}, 1, 1, False, 0.0)


def test_a_file_is_known_by_its_name_with_and_without_folder_and_suffix() -> None:
    ids = ids_by_name([item(1, "x", "far/pond.wav")])
    assert ids == dict.fromkeys(("far/pond.wav", "far/pond", "pond.wav", "pond", "x"), "x")


def test_a_name_that_two_items_share_means_neither() -> None:
    items = [item(1, "x", "pond.wav"), item(2, "y", "pond.wav"), item(3, "z", "lake.wav")]
    assert ids_by_name(items).keys() == {"x", "y", "z", "lake.wav", "lake"}
    assert names_of(items) == {1: "x", 2: "y", 3: "lake.wav"}


def test_the_name_as_it_is_goes_before_a_part_of_another_and_an_id_before_all() -> None:
    items = [item(1, "x", "far/pond.wav"), item(2, "y", "pond.wav"), item(3, "lake.wav", None)]
    assert ids_by_name(items)["pond.wav"] == "y"
    assert names_of(items) == {1: "far/pond.wav", 2: "pond.wav", 3: "lake.wav"}
    items = [*items, item(4, "z", "lake.wav"), item(5, "w", "/")]
    assert names_of(items)[4] == "z"
    assert names_of(items)[5] == "w"


def test_every_name_that_is_written_is_found_again() -> None:
    files = ["a.wav", "a.wav", "b/a.wav", "b.wav", "b", "", None, "/", "e\u0301.wav", "1"]
    items = [item(key, str(key), file) for key, file in enumerate(files)]
    ids = ids_by_name(items)
    names = names_of(items)
    assert {key: ids[normal(name)] for key, name in names.items()} == {
        key: str(key) for key in range(len(files))
    }
