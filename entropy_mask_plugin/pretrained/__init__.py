"""Models that come from elsewhere.

teacher          a frozen model that scores tokens and distils
initialization   copies layers of another model at the beginning of a run
restore          the checkpoint that fairseq is going to load, checked in time
"""
