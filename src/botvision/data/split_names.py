"""What folders, files and lists of splits are called, in lower case, and what we call the splits."""

TRAIN_NAMES = ("train", "training")
VAL_NAMES = ("val", "valid", "validation")
TEST_NAMES = ("test", "testing")
HELD_NAMES = (*VAL_NAMES, *TEST_NAMES)  # in the order in which they serve as validation data
SPLIT_NAMES = (*TRAIN_NAMES, *HELD_NAMES)
SPLITS = {
    name: split
    for split, names in (("train", TRAIN_NAMES), ("val", VAL_NAMES), ("test", TEST_NAMES))
    for name in names
}
