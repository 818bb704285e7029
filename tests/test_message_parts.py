"""The parts of role messages: what becomes of each kind, and that none is left out in silence."""

import base64
from typing import Any, Dict

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wire import JSON_VALUES

from copilot_sync.inline_files import FILE_LIMIT
from copilot_sync.message_parts import NO_ATTACHMENTS, Attachments, read_content


def data_url(content: bytes, kind: str = "text/plain") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def file_part(name: Any, data: Any) -> Dict[str, Any]:
    return {"type": "file", "file": {"filename": name, "file_data": data}}


@pytest.mark.parametrize("kind", ["text", "input_text", "output_text"])
def test_text_is_text_by_each_of_its_names(kind: str) -> None:
    """Joined as it stands."""
    parts = ["a ", {"type": kind, "text": "b "}, {"text": "c "}, {"type": None, "text": "d"}]
    assert read_content(0, parts) == ("a b c d", NO_ATTACHMENTS)


@pytest.mark.parametrize(
    ("url", "kind", "name"),
    [
        ("https://a.example/cat.png", "png", "cat.png"),
        ("https://a.example/x/cat.JPG?size=large#top", "jpeg", "cat.JPG"),
        ("HTTPS://a.example:8443/cat.jpeg", "jpeg", "cat.jpeg"),
        ("https://a.example/cat.gif", "gif", "cat.gif"),
        ("https://a.example/cat%20one.webp", "webp", "cat one.webp"),
        ("https://a.example/u/583231?v=4", "jpeg", "583231"),
        ("https://a.example/v1.2/cat", "jpeg", "cat"),
        ("https://a.example", "jpeg", "image"),
        ("https://a.example/grüße.png", "png", "grüße.png"),
        ("https://a.example/a%2Fb%FF.png", "png", "b\ufffd.png"),
    ],
)
def test_an_image_at_an_https_address_is_media(url: str, kind: str, name: str) -> None:
    """Of the type that its extension says, by its address as it is; both APIs' shapes are read."""
    expected = {"mediaType": f"image/{kind}", "name": name, "url": url}
    for part in (
        {"type": "image_url", "image_url": {"url": url, "detail": "high"}},
        {"type": "image_url", "image_url": url},
        {"type": "input_image", "image_url": url},
    ):
        assert read_content(0, ["Look: ", part]) == ("Look: ", Attachments(media=(expected,)))


@pytest.mark.parametrize(
    "part",
    [
        file_part("app.py", data_url(b"x = '\xc3\xa9'")),
        file_part("app.py", data_url(b"x = '\xc3\xa9'", "application/octet-stream")),
        file_part(
            "app.py", data_url(b"\xef\xbb\xbfx = '\xc3\xa9'", "text/x-python;charset=utf-8").replace("d", "D", 1)
        ),
        {"type": "input_file", "filename": "app.py", "file_data": data_url(b"x = '\xc3\xa9'")},
        {"type": "file", "filename": "app.py", "file_data": data_url(b"x = '\xc3\xa9'")},
    ],
    ids=["chat", "by its bytes", "with a mark", "responses", "flat"],
)
def test_a_text_file_becomes_an_inline_file(part: Dict[str, Any]) -> None:
    """Whatever type its address names."""
    expected = {"type": "thread-scoped-file", "name": "app.py", "text": "x = 'é'", "language": "py"}
    assert read_content(0, (part, "Review this")) == ("Review this", Attachments(references=(expected,)))


def test_the_largest_file_is_taken() -> None:
    """To the byte."""
    _, attachments = read_content(0, [file_part("a.txt", data_url(b"x" * FILE_LIMIT))])
    assert len(attachments.references[0]["text"]) == FILE_LIMIT


def test_all_parts_are_kept_in_their_order() -> None:
    """Of each kind."""
    names = ["b.png", "a.png"]
    parts = [{"type": "input_image", "image_url": f"https://x.example/{name}"} for name in names]
    files = [file_part(name, data_url(b"x")) for name in ("b.py", "a.py")]
    text, attachments = read_content(0, [parts[0], files[0], "?", parts[1], files[1]])
    assert [each["name"] for each in (*attachments.media, *attachments.references)] == [*names, "b.py", "a.py"]
    assert text == "?"


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (
            {"type": "image_url", "image_url": {"url": data_url(b"x" * 9999, "image/png")}},
            "an image, .*its address begins with data:",
        ),
        (
            {"type": "image_url", "image_url": {"url": "http://a.example/a.png"}},
            r"an image, .* \(its address begins with http:",
        ),
        (
            {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
            r"an image, .*its address begins with file:",
        ),
        ({"type": "image_url", "image_url": {"url": "a.png"}}, "its address is not valid"),
        ({"type": "image_url", "image_url": {"url": ""}}, "its address is not valid"),
        ({"type": "image_url", "image_url": {"url": "https://"}}, "its address is not valid"),
        ({"type": "image_url", "image_url": {"url": "https:///a.png"}}, "its address is not valid"),
        ({"type": "image_url", "image_url": {"url": "https://[a.png"}}, "its address is not valid"),
        ({"type": "image_url", "image_url": {"url": "https://a.example/a\n.png"}}, "its address is not valid"),
        ({"type": "image_url", "image_url": {"url": "https://a.example/a .png"}}, "its address is not valid"),
        ({"type": "image_url", "image_url": {"url": "https://a.example/\ud800.png"}}, "its address is not valid"),
        ({"type": "image_url", "image_url": {"url": "https://a.example/a.svg"}}, "its address ends in '.svg'; media="),
        ({"type": "image_url", "image_url": {"url": "https://a.example/a.php"}}, "its address ends in '.php'"),
        ({"type": "image_url", "image_url": {}}, r"an image, .* \(it has no address in image_url\)"),
        ({"type": "image_url"}, r"an image, .* \(it has no address in image_url\)"),
        ({"type": "input_image", "file_id": "file-1"}, r"an image, .* \(it has no address in image_url\)"),
        ({"type": "file", "file": {"file_id": "file-1"}}, "a file, .*the part does not hold it in file_data"),
        ({"type": "input_file", "file_url": "https://a.example/a.txt"}, "the part does not hold it in file_data"),
        (file_part("a.pdf", data_url(b"%PDF-1.7\n\xe2\xe3")), "the file 'a.pdf', .*it is not UTF-8 text"),
        (file_part("a.bin", data_url(b"a\0b")), "the file 'a.bin', .*NUL characters"),
        (file_part("a.txt", data_url(b"x" * (FILE_LIMIT + 1))), "the file 'a.txt', .* larger than 1024 KiB"),
        (file_part("a.txt", "data:;base64," + "!" * (2 * FILE_LIMIT + 1)), "the file 'a.txt', .* larger than 1024 KiB"),
        (file_part("a.txt", "eA=="), r"its file_data is not data:…;base64,…\)"),
        (file_part("a.txt", "data:text/plain,hello"), "its file_data is not data:…;base64,…"),
        (file_part("a.txt", "https://a.example/;base64,eA=="), "its file_data is not data:…;base64,…"),
        (file_part("a.txt", "data:;base64,eA="), "its file_data is not valid base64"),
        (file_part("a.txt", "data:;base64,é"), "its file_data is not valid base64"),
        (file_part("a.txt", "data:;base64,e!A=="), "its file_data is not valid base64"),
        (file_part("", data_url(b"x")), "a file must have a name"),
        ({"type": "input_audio", "input_audio": {"data": "x"}}, "a part of type 'input_audio'"),
        ({"type": "refusal", "refusal": "no"}, "a part of type 'refusal'"),
        ({"type": "TEXT", "text": "a"}, "a part of type 'TEXT'"),
        ({"type": "x" * 10_000}, f"a part of type '{'x' * 40}'"),
        ({"type": ["text"]}, "a part without a type or text"),
        ({"type": 5, "text": "a"}, "a part without a type or text"),
        ({"type": ""}, "a part without a type or text"),
        ({}, "a part without a type or text"),
        ({"image_url": {"url": "https://a"}}, "a part without a type or text"),
    ],
    ids=ascii,
)
def test_what_can_not_be_sent_is_refused(part: Dict[str, Any], words: str) -> None:
    """It is named, with its message, and so is what can be sent; the error is short however large the part is."""
    with pytest.raises(ValueError, match=words) as raised:
        read_content(3, ["a text", part])
    assert str(raised.value).endswith("JPEG, PNG, GIF and WEBP images with an https:// address can be sent")
    assert str(raised.value).startswith("message 3 has ")
    assert len(str(raised.value)) < 350


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (5, "the content of message 3 must be a string or a list of parts"),
        ({"text": "a"}, "the content of message 3 must be a string or a list of parts"),
        ([None], "a part of message 3 must be a dictionary, not NoneType"),
        ([["a"]], "a part of message 3 must be a dictionary, not list"),
        ([{"type": "text", "text": 5}], "the text of a part in message 3 must be a string, not int"),
        ([{"type": "image_url", "image_url": 5}], "the address of an image in message 3 must be a string, not int"),
        ([{"type": "image_url", "image_url": {"url": ["a"]}}], "the address of an image in message 3 must be a string"),
        ([{"type": "file", "file": "a.py"}], "the file of a part of message 3 must be a dictionary"),
        ([{"type": "file", "file": None}], "the file of a part of message 3 must be a dictionary"),
        ([file_part("a.py", b"x")], "the file_data of a file in message 3 must be a string, not bytes"),
        ([file_part(None, data_url(b"x"))], "the filename of a file in message 3 must be a string, not NoneType"),
    ],
    ids=ascii,
)
def test_what_has_the_wrong_type_is_a_type_error(content: Any, words: str) -> None:
    """It names the message and what was wanted."""
    with pytest.raises(TypeError, match=words):
        read_content(3, content)


_CARRIED = ("image_url", "input_image", "file", "input_file")
KINDS = st.sampled_from(["text", "input_text", "image_url", "input_image", "file", "input_file"])
FIELDS: Dict[str, Any] = {
    "text": JSON_VALUES,
    "image_url": JSON_VALUES | st.text().map("https://{}".format) | st.fixed_dictionaries({"url": JSON_VALUES}),
    "file_data": JSON_VALUES | st.binary(max_size=9).map(data_url),
    "filename": JSON_VALUES,
    "file": JSON_VALUES | st.fixed_dictionaries({"filename": st.text(), "file_data": st.text()}),
}


@given(st.lists(JSON_VALUES | st.fixed_dictionaries({"type": KINDS}, optional=FIELDS), max_size=3))
@example([{"type": "image_url", "image_url": "https://a\u2100.example"}])
def test_any_content_is_read_or_a_mistake_of_the_callers(content: Any) -> None:
    """Nothing else than ``TypeError`` and ``ValueError`` comes out, and no attachment gets lost."""
    try:
        text, attachments = read_content(0, content)
    except (TypeError, ValueError) as error:
        assert type(error) in (TypeError, ValueError)
    else:
        assert isinstance(text, str)
        carried = sum(isinstance(part, dict) and part.get("type") in _CARRIED for part in content)
        assert len(attachments.media) + len(attachments.references) == carried
