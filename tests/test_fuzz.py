"""What `scripts/fuzz` finds in a minute; let it run longer after changes of what reads."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent.parent / "scripts" / "fuzz.py"


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="its limits are those of Linux")
def test_damage_is_told_and_gives_no_wrong_data():
    command = [sys.executable, FUZZ, "--minutes", "1.5", "--seed", "7"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"seed 7: (\d+) cases", done.stdout)[1]) > 50
