#!/usr/bin/python3
"""compare.py DOCUMENT PART OUTSIDE OTHER…: compares files of `question → answer` lines.

The differences that are allowed are in the document's tables whose header begins with the part's word:

    | PART | outside | TCP mode | raw | shared |

with a column for each file.

A cell with `=` is the answer outside; in others, `…` is anything, and "`A` or `B`" is either. A question that no table has must be answered alike everywhere. One that a table has
must be answered as the row says, so that a difference that is gone leaves the document, too. A question that ends with
"(both)" stands for one of IPv4 and one of IPv6. Below the heading "Being mended", an answer may also be that of outside.
"""
import pathlib
import re
import sys

def answers(path):
    lines = pathlib.Path(path).read_text(errors="replace").splitlines()
    return {question: answer for question, _, answer in (line.partition(" → ") for line in lines)}


def allowed(document, part):
    rows, places, heading, reading = {}, [], "", False
    for line in pathlib.Path(document).read_text().splitlines():
        if line.startswith("#"):
            heading, reading = line.lstrip("# "), False
        elif not line.startswith("|"):
            reading = False
        else:
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if cells[0] == part:
                reading, places = True, cells[1:]
            elif reading and not re.fullmatch(r"-+", cells[0]):
                if len(cells) != len(places) + 1:
                    sys.exit(f"{document}: a row of {len(places) + 1} cells is wanted: {line}")
                question, *values = cells
                values = [values[0] if value == "=" else value for value in values]
                both = question.endswith(" (both)")
                for name in [f"{question[:-7]}, IPv{v}" for v in (4, 6)] if both else [question]:
                    if name in rows:
                        sys.exit(f"{document}: {name} is there twice")
                    rows[name] = (values, heading == "Being mended")
    return rows, places


def is_as(cell, answer):
    patterns = [re.escape(one.strip("`")).replace("…", ".*") for one in cell.split("` or `")]
    return any(re.fullmatch(pattern, answer, re.DOTALL) for pattern in patterns)


def main():
    document, part, *paths = sys.argv[1:]
    rows, places = allowed(document, part)
    if len(places) != len(paths):
        sys.exit(f"{document}: the tables of {part} have {len(places)} places, and {len(paths)} files were given")
    seen = [answers(path) for path in paths]
    questions = list(dict.fromkeys(question for those in seen for question in those))
    wrong = 0
    for question in questions:
        given = [those.get(question, "(no answer)") for those in seen]
        wanted, mending = rows.pop(question, ([f"`{given[0]}`"] * len(given), False))
        bad = [place for place, is_given, is_wanted in zip(places, given, wanted)
               if not is_as(is_wanted, is_given) and not (mending and is_given == given[0])]
        if bad:
            wrong += 1
            print(f"{question}\n" + "".join(
                f"    {place}: {answer}{'' if is_as(want, answer) else f'    wanted: {want}'}\n"
                for place, answer, want in zip(places, given, wanted)), end="")
    for question in rows:
        wrong += 1
        print(f"{question}: listed in {document}, but not asked")
    print(f"{len(questions)} questions, {len(seen)} places, {wrong} not as the table says")
    sys.exit(1 if wrong or not questions else 0)


main()
