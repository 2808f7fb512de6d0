"""What made an export, in words."""

import pytest

from tfzip import describe


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (45_600, "45.6 kB"),
        (249_000_000, "249 MB"),
        (3 * 10**12, "3.00 TB"),
    ],
)
def test_a_size_is_told_in_three_figures(count, told):
    assert describe.size(count) == told
