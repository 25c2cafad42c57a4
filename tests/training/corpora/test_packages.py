import csv
from importlib.resources import files

import pytest

from training.corpora.packages import KINDS, Package, kind_of, listed


def rows(name):
    with (files("training.corpora") / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_list_is_sorted_without_repeats_and_of_known_kinds():
    names = [row["package"] for row in rows("packages.csv")]
    assert names == sorted(set(names))
    assert len(listed()) == len(names)
    assert {package.kind for package in listed().values()} <= set(KINDS)


def test_the_patterns_are_of_known_kinds_lower_case_and_of_listed_packages():
    for row in rows("paths.csv"):
        assert row["kind"] in KINDS
        assert row["pattern"] == row["pattern"].lower()
        prefix = row["package"].split("*")[0]
        assert any(name.startswith(prefix) for name in listed()), row


def test_collections_are_no_packages_and_their_patterns_are_of_known_kinds():
    for row in rows("collections.csv"):
        assert row["kind"] in KINDS
        assert row["pattern"] == row["pattern"].lower()
        assert row["collection"] not in listed()


@pytest.mark.parametrize(
    ("package", "origin", "kind"),
    [
        ("wesnoth-1.16-data", "a/ambient/Wind.ogg", "ambience"),
        ("wesnoth-1.16-data", "a/sounds/axe.ogg", "effects"),
        ("redeclipse-data", "a/sounds/ambience/x.wav", "ambience"),
        ("tuxpaint-stamps-default", "a/animals/birds/owl.ogg", "effects"),
        ("tuxpaint-stamps-default", "a/animals/birds/owl_desc_fr.ogg", "speech"),
        ("tuxpaint-stamps-default", "a/symbols/flag.ogg", "unknown"),
        ("sonic-pi-samples", "a/samples/bd_haus.flac", "drums"),
        ("sonic-pi-samples", "a/samples/misc_burp.flac", "unknown"),
        ("fillets-ng-data-cs", "a/sound/music/cs/x.ogg", "speech"),
        ("endless-sky-data", "a/sounds/Music/x.ogg", "music"),
        ("bucklespring-data", "a/effects/x.wav", "key strokes"),
    ],
)
def test_a_files_kind_is_told_by_package_and_path(package, origin, kind):
    assert kind_of(listed()[package], origin, 1.0) == kind


def test_a_package_that_is_not_listed_has_general_rules_alone():
    assert kind_of(Package("new"), "a/Music/x.ogg", 1.0) == "music"
    assert kind_of(Package("new"), "a/b/x.ogg", 1.0) == "unknown"


def test_a_long_file_is_no_effect_on_the_word_of_its_package_alone():
    package = Package("new", "effects")
    assert kind_of(package, "a/b/x.ogg", 14.0) == "effects"
    assert kind_of(package, "a/b/x.ogg", 60.0) == "unknown"
    assert kind_of(package, "a/sfx/x.ogg", 60.0) == "effects"
    assert kind_of(Package("new", "music"), "a/b/x.ogg", 60.0) == "music"


@pytest.mark.parametrize(
    ("collection", "label", "kind"),
    [
        ("discord_gm", "001-Standard Kit/maraca", "drums"),
        ("discord_gm", "105-Sitar/Str", "notes"),
        ("voxelibre", "sounds/mcl_jukebox_track", "music"),
        ("voxelibre", "sounds/mobs_mc_villager", "unknown"),
        ("no-such-collection", "anything", "unknown"),
    ],
)
def test_a_clips_kind_is_told_by_collection_and_label(collection, label, kind):
    assert kind_of(Package(collection), label, 1.0) == kind
