"""Definitions of WordNet with their semantic fields.

In: Debian wordnet-base, unpacked. Out: definitions.tsv, LICENSE.
"""

from .output import write, write_lines

PARTS_OF_SPEECH = ["noun", "verb", "adj", "adv"]

# Lexicographer file names by number, from lexnames(5WN).
LEXNAMES = """
    adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact noun.attribute noun.body
    noun.cognition noun.communication noun.event noun.feeling noun.food noun.group noun.location
    noun.motive noun.object noun.person noun.phenomenon noun.plant noun.possession noun.process
    noun.quantity noun.relation noun.shape noun.state noun.substance noun.time verb.body verb.change
    verb.cognition verb.communication verb.competition verb.consumption verb.contact verb.creation
    verb.emotion verb.motion verb.perception verb.possession verb.social verb.stative verb.weather
    adj.ppl
""".split()


def write_wordnet(package, out):
    rows = ["label\ttext"]
    for part in PARTS_OF_SPEECH:
        rows += [definition(line) for line in synset_lines(package, part)]
    write_lines(out / "definitions.tsv", rows)
    write_licence(package, out)


def synset_lines(package, part):
    # The licence stands at the head of every data file, in lines that open with two spaces.
    return [line for line in data_lines(package, part) if not line.startswith("  ")]


def write_licence(package, out):
    licence = [line for line in data_lines(package, "noun") if line.startswith("  ")]
    # Each line is "  NUMBER text"; a blank one keeps only its number.
    text = [line.strip().partition(" ")[2].rstrip() + "\n" for line in licence]
    write(out / "LICENSE", "".join(text).encode("utf-8"))


def data_lines(package, part):
    return (package / f"usr/share/wordnet/data.{part}").read_text(encoding="utf-8").splitlines()


def definition(line):
    """One TSV row from one synset line: "offset lexicographer_file ... | gloss", see wndb(5WN)."""
    fields, gloss = line.split("|", 1)
    label = LEXNAMES[int(fields.split()[1])]
    # A tab would break the row; wordnet-base 1:3.0-37 has none.
    text = gloss.strip().replace("\t", " ")
    return f"{label}\t{text}"
