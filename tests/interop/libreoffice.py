"""Makes English and Chinese pairs of the help pages of LibreOffice, as Debian packages them.

    apt-get download libreoffice-help-en-us libreoffice-help-zh-cn
    for package in *.deb; do dpkg-deb -x $package .; done
    python libreoffice.py usr/share/libreoffice/help OUT

A paragraph or heading has the same id in both languages. Left out are those that are not translated, those that differ by
application, and an English text that was there before, but for case; of keys that differ by system, those of the Mac. By the hash of
the English text 1,000 pairs test, 500 validate, the rest trains: OUT/{train,valid,test}.jsonl with the keys en and zh.
"""
import hashlib
import html
import json
import pathlib
import re
import sys

PARAGRAPH = re.compile(r'<(p|h[1-6]) id="((?:par|hd)_[^"]+)"[^>]*>(.*?)</\1>', re.DOTALL)
# What is shown on one system alone has its name as class; what is shown on all others has none.
OF_ONE = re.compile(r'<span hidden="true" id="[^"]*" class="\w+">(?:<span[^>]*>[^<]*</span>|</?a[^>]*>|[^<])*</span>')


def plain(paragraph):
    if 'hidden="true"' in paragraph and 'id="default' not in paragraph:
        return ""
    paragraph = OF_ONE.sub("", paragraph).replace("<br", " <br")
    return " ".join(html.unescape(re.sub("<[^>]+>", "", paragraph)).split())


def paragraphs(path):
    return {key: plain(content) for _, key, content in PARAGRAPH.findall(path.read_text(encoding="utf-8"))}


def pairs(source):
    """A Chinese text for each English one, by the English text in lower case."""
    found = {}
    for path in sorted((source / "en-US" / "text").rglob("*.html")):
        translated = source / "zh-CN" / path.relative_to(source / "en-US")
        chinese = paragraphs(translated) if translated.is_file() else {}
        for key, text in paragraphs(path).items():
            other = chinese.get(key, "")
            if re.search("[A-Za-z]", text) and re.search("[\u4e00-\u9fff]", other):
                found.setdefault(text.lower(), {"en": text, "zh": other})
    return found


def main():
    source, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    found = sorted(pairs(source).items(), key=lambda pair: hashlib.sha256(pair[0].encode()).digest())
    rows = [json.dumps(pair, ensure_ascii=False) + "\n" for _, pair in found]
    for name, part in {"test": rows[:1000], "valid": rows[1000:1500], "train": rows[1500:]}.items():
        (out / f"{name}.jsonl").write_text("".join(part), encoding="utf-8")
        print(name, len(part))


if __name__ == "__main__":
    main()
