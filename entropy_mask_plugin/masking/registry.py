"""Parts that a user chooses by name."""

import difflib
from typing import Any, Callable, Iterator, Mapping, NamedTuple


class Entry(NamedTuple):
    """fn: what the name stands for; traits: what others have to know of it."""

    fn: Callable
    traits: Mapping[str, Any]

    @property
    def summary(self) -> str:
        """The first line of its docstring."""
        return (self.fn.__doc__ or "").strip().split("\n")[0]


class UnknownName(KeyError, ValueError):
    """A name that is not registered: says which are, and the nearest one."""

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

    def add(self, name: str, **traits: Any) -> Callable:
        """Decorate a part.

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
            self._entries[name] = Entry(fn, {**self.defaults, **traits})
            return fn

        return decorate

    def __getitem__(self, name: str) -> Entry:
        """Raises UnknownName where there is no such part."""
        if name not in self._entries:
            raise UnknownName(f"{self.flag}: {name} found, expected {self.expected(name)}")
        return self._entries[name]

    def expected(self, name: str) -> str:
        """What a user should have typed."""
        near = difflib.get_close_matches(str(name), self._entries, n=1)
        return "one of " + ", ".join(self._entries) + (f" (did you mean {near[0]}?)" if near else "")

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
