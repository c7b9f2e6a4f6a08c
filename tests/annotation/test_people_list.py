"""Who annotates: lists as programs save them, and the private file as people edit it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from annotation import people
from mmtt_build.errors import ConfigError


@pytest.mark.parametrize(
    "content",
    [
        b"ana@lab.example,Ana M\xc3\xbcller\nben@lab.example\n",
        b"\xef\xbb\xbfE-Mail;Name\r\nANA@lab.example; Ana  M\xc3\xbcller \r\n\r\nben@lab.example;\r\n",
        b"name,team,email\nAna M\xc3\xbcller,x,ana@lab.example\n,,Ben@Lab.Example\n",
        b'"ana@lab.example";"Ana M\xc3\xbcller"\n"ben@lab.example";""\n',
        b"email\tname\nana@lab.example\tAna M\xc3\xbcller\nben@lab.example\t\n",
    ],
)  # fmt: skip
def test_a_list_of_people_as_programs_save_it(tmp_path, content):
    (tmp_path / "people.csv").write_bytes(content)
    known = {}
    assert people.enrol(known, tmp_path / "people.csv") == ["a01", "a02"]
    assert known == {"a01": people.Person("ana@lab.example", "Ana Müller"), "a02": people.Person("ben@lab.example")}
    people.save(tmp_path, known)
    assert people.load(tmp_path) == known


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"name\nAna\n", "its first line has neither an e-mail address nor a column email"),
        (b"Ana,ana@lab.example\n", "line 1: 'ana' is no e-mail address"),
        (b"ana@lab.example,M\xfcller\n", "Excel calls that 'CSV UTF-8'"),
        (b"", "names nobody"),
        (b"email,name\nana@lab.example\nben@lab.example\nAna@Lab.example\n", "line 4: ana@lab.example is there twice"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(tmp_path, content, problem):
    (tmp_path / "people.csv").write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(problem)):
        people.enrol({}, tmp_path / "people.csv")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("annotator,name\na01,Ana\n", "has no column email"),
        ("a01,ana@lab.example,Ana\n", "has no column annotator and no column email"),
        ("annotator,email\na01,ana@lab.example\na01,ben@lab.example\n", "line 3: a01 is there twice"),
        ("annotator,email\na01,ana@lab.example\na02,ANA@lab.example\n", "line 3: ana@lab.example is there twice"),
        ("annotator,email\n,ana@lab.example\n", "line 2: '' is no id of an annotator"),
        ("annotator,email\na01\n", "line 2: '' is no e-mail address"),
    ],
)
def test_a_private_file_that_was_edited_wrongly_is_named(tmp_path, content, problem):
    (tmp_path / people.FILE_NAME).write_text(content)
    with pytest.raises(ConfigError, match=re.escape(problem)):
        people.load(tmp_path)


def test_a_private_file_may_be_edited(tmp_path):
    (tmp_path / people.FILE_NAME).write_text("\ufeffEmail;Annotator\r\nAna@new.example;a01\r\n", "utf-8")
    assert people.load(tmp_path) == {"a01": people.Person("ana@new.example")}


def test_an_id_is_one_persons_for_ever(tmp_path):
    file = tmp_path / "people.csv"
    file.write_text("ana@lab.example,Ana Smith\ncem@lab.example\ndan@lab.example\n")
    known = {
        "a01": people.Person("ana@lab.example", "Ana Jones"),
        "a03": people.Person("cem@lab.example", "Cem", left="2026-01-31"),
    }  # the line of a02 was deleted, and a04 is in a table
    assert people.enrol(known, None) == ["a01"]
    assert people.enrol(known, file, used={"a04", "user-7"}) == ["a01", "a03", "a05"]
    assert known["a01"] == people.Person("ana@lab.example", "Ana Smith")
    assert known["a03"] == people.Person("cem@lab.example", "Cem"), "named again, so back; a name is not forgotten"
    everybody_left = {name: replace(person, left="2026-01-31") for name, person in known.items()}
    with pytest.raises(ConfigError, match="nobody is there to annotate"):
        people.enrol(everybody_left, None)
