"""Languages whose words are not separated by spaces: scored, and checked for leaks, like the others."""

import pytest

from lightpaff.data.leaks import LeakIndex
from lightpaff.evaluation.bleu_tokenizers import bleu_tokenizer
from lightpaff.evaluation.texts import GeneratedTexts

CHINESE = [
    "今天下午我们在公园里看到了很多漂亮的花。",
    "两个穿着红色衣服的小孩正在沙滩上踢足球。",
    "一位老人坐在窗边的椅子上安静地读着报纸。",
    "这家餐厅的菜很好吃,但是服务员的态度不太好。",
]
NEARLY = [
    text.replace("漂亮", "美丽").replace("正在", "在").replace("安静", "静静").replace("不太好", "很差")
    for text in CHINESE
]
JAPANESE = ["二人の子供が砂浜でサッカーをしています。", "老人が窓のそばの椅子に座って新聞を読んでいる。"]
THAI = ["เด็กสองคนกำลังเล่นฟุตบอลบนชายหาด", "ชายชรานั่งอ่านหนังสือพิมพ์อยู่ข้างหน้าต่าง"]
ENGLISH = ["Two small children play football on the sunny beach.", "An old man reads the morning paper (2 pages)."]


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (CHINESE, {"zh"}),
        (JAPANESE, {"ja-mecab", "char"}),
        (["두 아이가 해변에서 축구를 하고 있다."], {"ko-mecab", "char"}),
        (THAI, {"char"}),
        (ENGLISH, {"13a"}),
        (["Двое детей играют в футбол.", "42"], {"13a"}),
        (["", "1 + 1"], {"13a"}),
        (["The word 中文 means Chinese language."], {"13a"}),
    ],
)
def test_the_tokenizer_fits_the_script(texts: list[str], names: set[str]) -> None:
    assert bleu_tokenizer(texts) in names


@pytest.mark.parametrize("texts", [CHINESE, JAPANESE, THAI])
def test_bleu_sees_what_is_right_in_a_sentence_without_spaces(texts: list[str]) -> None:
    written = [text.replace("。", "!") + "x" for text in texts]
    scored = GeneratedTexts(written, [[text] for text in texts])
    assert 0.6 < scored.score("bleu") < 1
    assert f"tok:{bleu_tokenizer(texts)}" in scored.signatures()["bleu"]


def test_nearly_right_chinese() -> None:
    assert GeneratedTexts(NEARLY, [[text] for text in CHINESE]).score("bleu") > 0.7


@pytest.mark.parametrize("texts", [CHINESE, JAPANESE, THAI, ENGLISH])
def test_a_leak_is_found_inside_a_text(texts: list[str]) -> None:
    index = LeakIndex(texts)
    around = {"before": texts[0][:6] + " ", "behind": " " + texts[-1][:5]}
    for text in texts:
        assert index.find(around["before"] + text + around["behind"]) == text
        joined = text.rstrip("。.") if texts is not ENGLISH else text
        assert LeakIndex([joined]).find(texts[-1][-4:] + (" " if texts is ENGLISH else "") + text) == joined


def test_other_texts_of_the_same_script_are_no_leaks() -> None:
    assert LeakIndex(CHINESE).find("今天下午我们在学校里看到了很多高大的树。") is None
    assert LeakIndex(CHINESE).find(CHINESE[0][:-3]) is None
