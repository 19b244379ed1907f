"""Opening a model: what ONNX Runtime cannot open is refused with what to do."""

import pytest

from riverdelta.core.errors import ModelError
from riverdelta.graph.runtime import open_session

LOWER = 'g (string[N] x) => (string[N] y) { y = StringNormalizer<case_change_action = "LOWER", locale = "xx_XX.UTF-8">(x) }'


def test_a_locale_that_the_machine_lacks_ends_in_the_option_of_the_exporter(write):
    with pytest.raises(ModelError, match=r"needs the locale xx_XX\.UTF-8, .* options=\{TfidfVectorizer: .*'C\.UTF-8'\}\}\)$"):
        open_session(write(LOWER))
