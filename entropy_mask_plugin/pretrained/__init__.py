"""Models trained elsewhere.

teacher          a frozen model that scores tokens and distils
initialization   copies layers of another model before training
restore          checks the checkpoint before fairseq loads it
"""
