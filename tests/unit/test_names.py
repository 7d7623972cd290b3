"""The name grammar, and how a name is chosen from what a registry holds."""

import pytest

from sunup.errors import RegistryError, UsageError
from sunup.registry.source import Entry, Reference, Version, choose, parse


@pytest.mark.parametrize(
    ("text", "name", "version", "alias"),
    [
        ("fraud-v3", "fraud", "3", None),
        ("fraud-v03", "fraud", "3", None),
        ("fraud@champion", "fraud", None, "champion"),
        ("fraud", "fraud", None, None),
        ("fraud@latest", "fraud", None, None),
        (" fraud ", "fraud", None, None),
        ("card-fraud-v12", "card-fraud", "12", None),
        ("fraud-v3-v2", "fraud-v3", "2", None),
        ("fraud-v", "fraud-v", None, None),
        ("fraud-vx", "fraud-vx", None, None),
        ("-v3", "-v3", None, None),
        ("v3", "v3", None, None),
        ("fraud-v3@blue", "fraud-v3", None, "blue"),
        ("models:/fraud/3", "fraud", "3", None),
        ("models:/fraud-v3/1", "fraud-v3", "1", None),
        ("models:/fraud/latest", "fraud", None, None),
        ("models:/fraud@champion", "fraud", None, "champion"),
        ("models://fraud/3", "fraud", "3", None),
    ],
)
def test_what_a_name_means(text: str, name: str, version: str | None, alias: str | None) -> None:
    found = parse(text)
    assert (found.name, found.version, found.alias) == (name, version, alias)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "a b", "fraud@", "@champion", "a@b@c", "fraud/3", "runs:/abc/model", "models:/", "models:/fraud"),
        *("models:/fraud/", "models:/fraud/x", "models:/fraud/Production", "models:/fraud/3/model", "models:/fraud/³"),
    ],
)
def test_what_is_no_name_says_how_to_write_one(text: str) -> None:
    with pytest.raises(UsageError, match="fraud-v3") as caught:
        parse(text)
    assert caught.value.exit_code == 2


def test_only_a_name_with_a_version_has_two_readings() -> None:
    assert parse("fraud-v3").exact == "fraud-v3"
    assert [parse(text).exact for text in ("fraud", "fraud@a", "models:/fraud/3")] == [None, None, None]


def registry(*entries: Entry) -> dict[str, Entry]:
    return {entry.name: entry for entry in entries}


def entry(name: str, *versions: int, **aliases: str) -> Entry:
    return Entry(name, {str(v): Version(f"run{v}", f"uri{v}") for v in versions}, aliases)


FRAUD = entry("fraud", 1, 2, 10, champion="2", best="2", gone="7")
EXACT = entry("fraud-v3", 4)


def ask(text: str | Reference, *entries: Entry) -> object:
    held = registry(*entries)
    reference = parse(text) if isinstance(text, str) else text
    return choose(reference, find=held.get, names=lambda: sorted(held), where="the registry")


def test_a_version_an_alias_and_the_newest() -> None:
    two, ten = ask("fraud@champion", FRAUD), ask("fraud", FRAUD)
    assert ask("fraud-v2", FRAUD) == two
    assert ask("models:/fraud/2", FRAUD) == two
    assert two == ask("fraud@best", FRAUD)
    assert repr(two).find("aliases=('best', 'champion')") > 0
    assert repr(ten).find("version='10'") > 0, "10 is newer than 2"


def test_a_model_registered_under_the_exact_name_wins_and_says_so() -> None:
    found = ask("fraud-v3", entry("fraud", 1, 2, 3), EXACT)
    assert "name='fraud-v3', version='4'" in repr(found)
    assert "models:/fraud/3" in repr(found)
    assert "name='fraud', version='3'" in repr(ask("models:/fraud/3", entry("fraud", 3), EXACT))
    assert "note=''" in repr(ask("fraud-v4@latest", entry("fraud-v4", 1)))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fruad", "Closest: fraud"),
        ("fruad-v1", "There is no model fruad in the registry. Closest: fraud"),
        ("zzzz", "It holds fraud, fraud-v3."),
        ("fraud-v7", "fraud has no version 7. It has 1, 2, 10."),
        ("fraud@chamption", "Closest: fraud@champion."),
        ("fraud-v3@blue", "fraud-v3 has no alias blue, and none at all. Name a version: fraud-v3-v4"),
    ],
)
def test_what_does_not_exist_names_what_does(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        ask(text, FRAUD, EXACT)
    assert says in caught.value.message
    assert caught.value.exit_code == 2


def test_an_empty_registry_and_an_empty_model() -> None:
    with pytest.raises(UsageError, match="holds no models"):
        ask("fraud")
    with pytest.raises(UsageError, match="no version yet"):
        ask("fraud", entry("fraud"))
    with pytest.raises(UsageError, match="no versions yet"):
        ask("fraud-v1", entry("fraud"))


def test_a_version_that_cannot_be_used_is_a_failure_not_a_wrong_name() -> None:
    with pytest.raises(RegistryError, match="Move the alias"):
        ask("fraud@gone", FRAUD)
    broken = Entry("fraud", {"1": Version("", "", "its status is FAILED_REGISTRATION (disk full)")})
    with pytest.raises(RegistryError, match="disk full") as caught:
        ask("fraud", broken)
    assert caught.value.exit_code == 1
