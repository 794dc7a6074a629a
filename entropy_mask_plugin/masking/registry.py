"""Parts that a user chooses by name. An unknown name is answered with the list and the nearest one."""

import difflib
from typing import Any, Callable, Dict, Iterator, Mapping, NamedTuple, Optional


class Option(NamedTuple):
    """A setting of a part. It becomes a flag of the task, and the part's function gets it as a keyword argument.

    default: also its type; help: with unit and range; is_valid: of a value, None = all are; expected: in the message
    for one that is not.
    """

    default: Any
    help: str
    is_valid: Optional[Callable[[Any], bool]] = None
    expected: str = ""


class Entry(NamedTuple):
    """fn: the part; traits: {name: value}, what others need to know of it; options: {name: Option}."""

    fn: Callable
    traits: Mapping[str, Any]
    options: Mapping[str, Option] = {}

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (self.fn.__doc__ or "").strip().partition("\n")[0]

    def chosen(self, settings: Mapping[str, Any]) -> Dict[str, Any]:
        """{option: value} of this part, among the settings of all."""
        return {name: settings.get(name, option.default) for name, option in self.options.items()}


class UnknownName(KeyError, ValueError):
    """There is no such part: says which are, and the nearest one."""

    def __str__(self) -> str:  # KeyError's has quotes
        return self.args[0]


class Registry(Mapping[str, Entry]):
    """{name: Entry} of one kind of part, in the order in which they were added.

    Args:
        flag: what a user chooses one with.
        traits: {name of a trait: its default}.
    """

    def __init__(self, flag: str, **traits: Any):
        self.flag, self.defaults, self._entries = flag, traits, {}

    def add(self, name: str, options: Optional[Mapping[str, Option]] = None, **traits: Any) -> Callable:
        """Decorate a part.

        Args:
            name: what the user types.
            options: {name of a keyword argument: Option}.
            traits: those that are not the defaults.
        Raises:
            ValueError: the name is taken; no part of this kind has such a trait.
        """
        unknown = sorted(set(traits) - set(self.defaults))
        if unknown:
            raise ValueError(f"{self.flag} {name}: trait {unknown[0]} found, expected some of "
                             + ", ".join(self.defaults))

        def decorate(fn):
            if name in self._entries and self._entries[name].fn is not fn:
                raise ValueError(f"{self.flag}: {name} is registered already, expected another name")
            self._entries[name] = Entry(fn, {**self.defaults, **traits}, dict(options or {}))
            return fn

        return decorate

    def __getitem__(self, name: str) -> Entry:
        """Raises UnknownName where there is no such part."""
        if name not in self._entries:
            raise UnknownName(f"{self.flag}: {name} found, expected {self.expected(name)}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def expected(self, name: str) -> str:
        """What a user should have typed."""
        near = difflib.get_close_matches(str(name), self._entries, n=1)
        return "one of " + ", ".join(self._entries) + (f" (did you mean {near[0]}?)" if near else "")

    def options(self) -> Dict[str, Option]:
        """{name: Option} of all parts."""
        return {name: option for entry in self.values() for name, option in entry.options.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
