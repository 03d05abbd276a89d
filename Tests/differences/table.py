#!/usr/bin/python3
"""table.py DOCUMENT PART FIRST OTHER…: writes the rows of the document's table whose header begins with the part's word.

Each file has `question → answer` lines. `=` stands for the first one's answer. Two questions that end with ", IPv4" and
", IPv6", stand behind each other, and are answered alike, become one that ends with " (both)", as compare.py reads it.
"""
import pathlib
import sys


def answers(path):
    lines = pathlib.Path(path).read_text(errors="replace").splitlines()
    return {question: answer for question, _, answer in (line.partition(" → ") for line in lines)}


def rows(those):
    questions = list(those[0])
    given = {question: [each.get(question, "(no answer)") for each in those] for question in questions}
    made, index = [], 0
    while index < len(questions):
        question = questions[index]
        name, values = question, given[question]
        other = question[:-1] + "6"
        if question.endswith(", IPv4") and given.get(other) == values:
            name, index = question[:-6] + " (both)", index + 1
        index += 1
        cells = [f"`{values[0]}`"] + ["=" if value == values[0] else f"`{value}`" for value in values[1:]]
        made.append(f"| {name} | {' | '.join(cells)} |")
    return made


def main():
    document, part, *paths = sys.argv[1:]
    lines = pathlib.Path(document).read_text().splitlines()
    starts = [index for index, line in enumerate(lines) if line.startswith(f"| {part} |")]
    if len(starts) != 1:
        sys.exit(f"{document}: {len(starts)} tables of {part}, one is wanted")
    start = end = starts[0] + 2
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    lines[start:end] = rows([answers(path) for path in paths])
    pathlib.Path(document).write_text("\n".join(lines) + "\n")


main()
