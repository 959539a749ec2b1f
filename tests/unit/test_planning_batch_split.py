"""Division of a step's examples among another number of processes."""

import pytest

from hf_finetune.planning.batch_split import split_batch


@pytest.mark.parametrize(
    ("given", "spread"),
    [
        ((8, 1, 2, 1), (8, 2)),
        ((8, 1, 1, 2), (4, 1)),
        ((8, 2, 1, 2), (8, 1)),
        ((2, 1, 3, 2), (1, 3)),
        ((4, 1, 3, 2), (3, 2)),
        ((4, 3, 2, 2), (4, 3)),
        ((7, 1, 3, 1), (7, 3)),
        ((3, 1, 1, 2), None),
        ((1, 1, 2, 3), None),
        ((5, 1, 2, 4), None),
    ],
)
def test_a_batch_is_spread_over_another_number_of_processes(given, spread):
    assert split_batch(*given) == spread


def test_a_spread_batch_has_as_many_examples_in_passes_that_are_no_larger():
    checked = 0
    for size in range(1, 9):
        for accumulation in range(1, 4):
            for before in range(1, 5):
                for after in range(1, 5):
                    whole = size * accumulation * before
                    found = split_batch(size, accumulation, before, after)
                    assert (found is None) == bool(whole % after)
                    if found:
                        assert found[0] * found[1] * after == whole and 1 <= found[0] <= size
                        # and in as few passes as possible
                        assert not [
                            passes
                            for passes in range(1, found[1])
                            if whole // after % passes == 0 and whole // after // passes <= size
                        ]
                        checked += 1
    assert checked > 200
