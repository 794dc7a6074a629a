"""Parts that a user chooses by name. The error for an unknown name lists the names and suggests the nearest one."""

import difflib
import textwrap
from typing import Any, Callable, Dict, Iterator, Mapping, NamedTuple, Optional, Tuple


class Option(NamedTuple):
    """A setting of a part. It becomes a flag of the task, and a keyword argument of the part's function.

    default: also determines the type; help: with unit and range; is_valid: value -> bool, None = every value is valid;
    expected: what the error for an invalid value says was expected.
    """

    default: Any
    help: str
    is_valid: Optional[Callable[[Any], bool]] = None
    expected: str = ""


class Entry(NamedTuple):
    """A registered part.

    fn: the function or class; traits: {name: value}, what other code needs to know about it; options: {name: Option}.
    """

    fn: Callable
    traits: Mapping[str, Any]
    options: Mapping[str, Option] = {}

    @property
    def summary(self) -> str:
        """The beginning of its docstring, in one line."""
        paragraph = (self.fn.__doc__ or "").strip().partition("\n\n")[0]
        return textwrap.shorten(paragraph, 110, placeholder=" …")

    def chosen(self, settings: Mapping[str, Any]) -> Dict[str, Any]:
        """{option: value} of this part; settings: those of all parts, by name."""
        return {name: settings.get(name, option.default) for name, option in self.options.items()}


class UnknownName(KeyError, ValueError):
    """No part has this name; the message lists the names and suggests the nearest one."""

    def __str__(self) -> str:  # KeyError's has quotes
        return self.args[0]


class Registry(Mapping[str, Entry]):
    """{name: Entry} of one kind of part, in the order in which they were added.

    Args:
        flag: the command-line flag that chooses one.
        traits: {name of a trait: its default}.
    """

    def __init__(self, flag: str, **traits: Any):
        self.flag, self.defaults, self._entries = flag, traits, {}

    def add(self, name: str, options: Optional[Mapping[str, Option]] = None, **traits: Any) -> Callable:
        """Decorate a part.

        Args:
            name: what the user types.
            options: {name of a keyword argument: Option}.
            traits: those that differ from the defaults.
        Returns:
            a decorator that registers its argument and returns it unchanged.
        Raises:
            ValueError: the name is taken; parts of this kind have no such trait.
        """
        unknown = sorted(set(traits) - set(self.defaults))
        if unknown:
            raise ValueError(f"{self.flag} {name}: trait {unknown[0]} found, expected some of "
                             + ", ".join(self.defaults))

        for option, setting in (options or {}).items():
            if not isinstance(setting.default, (bool, int, float, str)):
                raise ValueError(f"{self.flag} {name}: option {option} with default {setting.default!r} found, "
                                 "expected a bool, int, float or str")

        def decorate(fn):
            if name in self._entries and self._entries[name].fn is not fn:
                raise ValueError(f"{self.flag}: {name} is registered already, expected another name")
            self._entries[name] = Entry(fn, {**self.defaults, **traits}, dict(options or {}))
            return fn

        return decorate

    def __getitem__(self, name: str) -> Entry:
        """The part of this name.

        Raises:
            UnknownName: there is none.
        """
        if name not in self._entries:
            raise UnknownName(f"{self.flag}: {name} found, expected {self.expected(name)}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def expected(self, name: str) -> str:
        """What the error for an unknown name says was expected."""
        near = difflib.get_close_matches(str(name), self._entries, n=1)
        return "one of " + ", ".join(self._entries) + (f" (did you mean {near[0]}?)" if near else "")

    def options(self) -> Iterator[Tuple[str, Option]]:
        """(name, Option) of all parts; a name comes more than once where parts share an option."""
        for entry in self.values():
            yield from entry.options.items()

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
