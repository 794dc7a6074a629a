"""The archs. Importing this package registers them with fairseq."""

from ..fairseq_fixes.registry import make_room_for_bert_base

make_room_for_bert_base()

from . import bert, hbert  # noqa: E402, F401
