#!/usr/bin/env python3
"""Compares tests/fixtures/languages.json with this script, or writes it.

    languages_reference.py            exit code 1 if the file differs
    languages_reference.py --write    write the file
    languages_reference.py --peers    also print how many of these texts pysbd (if it is installed) and the Intl.Segmenter of
                                      Node.js (if there is a `node`) split as the file says

The file holds a short text in each of 18 languages, its sentences, marked by hand, and its words under each combination of the
settings do_lower_case, strip_accents and tokenize_chinese_chars. The words are computed here, from the data of Python's unicodedata,
by the rules of the BasicTokenizer of BERT. tests/it/languages.rs compares lambert's with these. Needs only Python.
"""

import argparse
import itertools
import json
import pathlib
import shutil
import subprocess
import sys
import unicodedata

FILE = pathlib.Path(__file__).resolve().parents[2] / "tests/fixtures/languages.json"

# Language, its code, what stands between sentences, and the sentences of a text of our own.
TEXTS = [
    ("English", "en", " ", [
        "Dr. J. Miller came at 5 p.m. on Oct. 3.", "\"Is it cold?\" he asked.", "It was 3.5 degrees, i.e. almost freezing!",
        "The U.S. Army left.", "(Nobody saw it.)",
    ]),
    ("German", "de", " ", [
        "Am 3. Oktober kam Dr. Müller, z. B. mit Äpfeln, d. h. mit Obst.", "Im 19. Jahrhundert war das anders!",
        "„Warum?“", "Es kostete ca. 5 Mio. Euro bzw. Franken.", "Er ging.",
    ]),
    ("French", "fr", " ", [
        "M. Dupont est arrivé à Évry.", "« Où est-il ? »", "L'été dernier, Mme Durand a payé 3,5 euros.", "C'est déjà fini !",
    ]),
    ("Spanish", "es", " ", [
        "¿Dónde está el Sr. García?", "¡Llegó mañana!", "Vive en EE. UU. desde 1990.", "La niña leyó la pág. 12.",
    ]),
    ("Russian", "ru", " ", [
        "А. С. Пушкин родился в Москве.", "Это было в г. Псков, т. е. далеко!", "Зачем?", "Ёлка стоит 5 тыс. рублей.",
    ]),
    ("Greek", "el", " ", [
        "Ο κ. Νίκος ήρθε χθες.", "Πού πήγε;", "Το σπίτι είναι μικρό· η θάλασσα είναι κοντά.", "Τέλος!",
    ]),
    ("Armenian", "hy", " ", ["Արամը եկավ տուն։", "Ո՞ւր է նա գնում։", "Երեխաները խաղում են այգում։"]),
    ("Arabic", "ar", " ", ["وصل د. أحمد أمس.", "هل جاء الطالب؟", "نعم، جاء مُبَكِّراً!", "ثم ذهب إلى البيت."]),
    ("Urdu", "ur", " ", ["یہ میری کتاب ہے۔", "کیا وہ آج آئے گا؟", "بارش ہو رہی ہے۔"]),
    ("Hindi", "hi", " ", ["डॉ. वर्मा कल दिल्ली आए।", "क्या आप हिंदी पढ़ते हैं?", "हाँ, मैं पढ़ता हूँ।", "बहुत अच्छा!"]),
    ("Tamil", "ta", " ", ["மழை பெய்கிறது.", "நீ எங்கே போகிறாய்?", "நான் வீட்டுக்குப் போகிறேன்."]),
    ("Amharic", "am", " ", ["ሰላም ነው።", "ስምህ ማን ነው?", "እኔ ተማሪ ነኝ።"]),
    ("Burmese", "my", "", ["ကျွန်တော် စာအုပ်၊ ခဲတံ ဝယ်တယ်။", "သူ ကျောင်းသွားတယ်။", "မိုးရွာနေတယ်။"]),
    ("Khmer", "km", " ", ["ខ្ញុំមានសៀវភៅ ប៊ិច ក្រដាស ។ល។", "គាត់ទៅសាលា។", "ចប់៕"]),
    ("Tibetan", "bo", " ", ["ང་བོད་པ་ཡིན།", "ཁྱེད་རང་གི་མིང་ལ་ག་རེ་ཟེར། །", "ང་ལ་དེབ་གཅིག་ཡོད།"]),
    ("Chinese", "zh", "", ["今天天气很好！", "你去哪里？", "他说３．１４是圆周率，很有用。", "（没有人知道。）", "我们都笑了……真的。"]),
    ("Japanese", "ja", "", ["今日は雨が降っています。", "彼は「行こう。」と言った。", "本当？", "ｶﾀｶﾅも読めます｡", "がぎぐパン。"]),
    ("Korean", "ko", " ", ["오늘은 비가 옵니다.", "어디에 가세요?", "저는 학교에 갑니다!"]),
]

RANGES_OF_CHINESE = [
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
]


def is_punctuation(c):
    is_ascii = 33 <= ord(c) <= 47 or 58 <= ord(c) <= 64 or 91 <= ord(c) <= 96 or 123 <= ord(c) <= 126
    return is_ascii or unicodedata.category(c).startswith("P")


def words(text, lowercase, strip_accents, chinese):
    text = "".join(c for c in text if c in "\t\n\r" or c not in "\0\ufffd" and not unicodedata.category(c).startswith("C"))
    if chinese:
        is_chinese = lambda c: any(first <= ord(c) <= last for first, last in RANGES_OF_CHINESE)
        text = "".join(f" {c} " if is_chinese(c) else c for c in text)
    text = text.lower() if lowercase else text
    if strip_accents:
        text = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
    spaced = "".join(f" {c} " if is_punctuation(c) else c for c in text)
    return spaced.split()


def case(language, code, between, sentences):
    rules = []
    text = between.join(sentences)
    for lowercase, strip_accents, chinese in itertools.product([False, True], repeat=3):
        settings = {"lowercase": lowercase, "strip_accents": strip_accents, "tokenize_chinese_chars": chinese}
        rules.append(settings | {"words": words(text, lowercase, strip_accents, chinese)})
    return {"language": language, "code": code, "text": text, "sentences": sentences, "rules": rules}


def compare(name, split):
    """Prints how many texts `split`, a function of code and text, splits as they are marked."""
    equal, other, without = [], [], []
    for language, code, between, sentences in TEXTS:
        try:
            found = [sentence.strip() for sentence in split(code, between.join(sentences))]
        except ValueError:
            without.append(language)
            continue
        (equal if found == sentences else other).append(language)
    print(f"{name}: {len(equal)} of {len(TEXTS)} texts equal; different: {', '.join(other) or 'none'}; "
          f"without rules for: {', '.join(without) or 'none'}")


def compare_peers():
    try:
        import pysbd
        compare("pysbd", lambda code, text: pysbd.Segmenter(language=code, clean=False).segment(text))
    except ImportError:
        print("pysbd is not installed")
    if node := shutil.which("node"):
        program = ("const [code, text] = process.argv.slice(1); const s = new Intl.Segmenter(code, {granularity: 'sentence'});"
                   "console.log(JSON.stringify([...s.segment(text)].map(x => x.segment)))")
        run = lambda code, text: json.loads(subprocess.run([node, "-e", program, code, text], capture_output=True, check=True).stdout)
        compare("Intl.Segmenter (ICU)", run)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--peers", action="store_true")
    args = parser.parse_args()
    computed = json.dumps([case(*text) for text in TEXTS], ensure_ascii=False, indent=1) + "\n"
    if args.peers:
        compare_peers()
    if args.write:
        FILE.write_text(computed, encoding="utf-8")
    elif FILE.read_text(encoding="utf-8") != computed:
        sys.exit(f"{FILE.name} differs from what this script computes with Unicode {unicodedata.unidata_version}")
    print(f"{len(TEXTS)} languages, {len(TEXTS) * 8} lists of words: {FILE.name} {'written' if args.write else 'is equal'}")


if __name__ == "__main__":
    main()
