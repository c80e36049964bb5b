"""The file readers on made-up rows: what each row becomes, what is refused, and that no row is lost."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from producers.readers import FORMATS, lines, open_source
from producers.source import SourceError, SourceRow
from schemas.events import EVENT

TAOBAO = """user_id,item_id,category_id,behavior,unix_ts
11,501,7,pv,1600000000
11,501,7,cart,1600000060
12,502,8,fav,1600000070
11,501,7,buy,1600000300
"""
REES46 = """event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session
2020-02-01 00:00:00 UTC,view,9001,77,toys.puzzle,acme,12.50,21,aaaa-1
2020-02-01 00:00:05 UTC,cart,9001,77,toys.puzzle,,12.50,21,aaaa-1
2020-02-01 00:01:00 UTC,purchase,9001,77,,acme,12.50,21,aaaa-1
2020-02-01 00:02:00 UTC,purchase,9002,78,,,0.00,22,bbbb-2
"""
RETAIL = """InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
700001,A10,"LAMP, RED",3,2011-03-01 09:00:00,2.55,31000.0,France
700001,A11,"THE ""BEST"" MUG",1,2011-03-01 09:00:00,0.0,31000.0,France
C70002,A10,LAMP,-2,2011-03-02 09:30:00,2.55,31000.0,France
700003,A12,TRAY,4,2011-03-02 10:00:00,1.10,,France
"""
CDNOW = """ customer_id  date number_of_cds  dollar_value
 00001 20200103  2   20.50
 00001 20200101  1   11.00
 00002 20200102  3    0.00
 00002 20200101  1    9.99
"""
JSONL = b"""{"event_id":"e1","user_id":"a","type":"click","occurred_at":1600000000000}
{"event_id":"e2","user_id":"b","type":"click","occurred_at":"2020-09-13T12:26:41+00:00"}
"""
TEXTS = {
    "taobao": TAOBAO.encode(),
    "rees46": REES46.encode(),
    "online_retail": RETAIL.encode(),
    "cdnow": CDNOW.encode(),
    "jsonl": JSONL,
}


def read(directory: Path, format: str, content: bytes, **options: Any) -> list[SourceRow]:
    path = directory / "data"
    path.write_bytes(content)
    source = open_source(format, path, **options)
    rows = list(source.rows())
    assert source.total == len(rows)
    for start in range(len(rows) + 2):
        assert list(source.rows(start)) == rows[start:]
    return rows


def events(rows: list[SourceRow]) -> list[dict[str, Any]]:
    found = []
    for row in rows:
        event = orjson.loads(row.value or b"null")
        event.pop("event_id")
        assert row.key == event.get("user_id", "").encode() or "user_id" not in event
        found.append(event)
    return found


def refusal(row: SourceRow) -> str:
    """Why the schema refuses the row: the first error's type and place."""
    with pytest.raises(ValidationError) as refused:
        EVENT.validate_json(row.value or b"")
    error = refused.value.errors()[0]
    return " ".join((error["type"], *map(str, error["loc"])))


def test_taobao(tmp_path: Path) -> None:
    rows = read(tmp_path, "taobao", TEXTS["taobao"])
    shared = {"user_id": "11", "item_id": "501", "category": "7"}
    assert events(rows) == [
        {"type": "browse", "occurred_at": 1600000000000, **shared},
        {"type": "add_to_cart", "occurred_at": 1600000060000, **shared},
        {"type": "favourite", "occurred_at": 1600000070000, "user_id": "12", "item_id": "502", "category": "8"},
        {"type": "purchase", "occurred_at": 1600000300000, **shared, "amount": 0.0, "quantity": 1},
    ]
    assert [row.timestamp for row in rows] == [1600000000000, 1600000060000, 1600000070000, 1600000300000]


def test_taobao_without_its_header(tmp_path: Path) -> None:
    without = TAOBAO.split("\n", 1)[1].encode()
    assert read(tmp_path, "taobao", without) == read(tmp_path, "taobao", TEXTS["taobao"])


def test_rees46(tmp_path: Path) -> None:
    shared = {"user_id": "21", "session_id": "aaaa-1", "item_id": "9001"}
    money = {"currency": "USD", "quantity": 1}
    assert events(read(tmp_path, "rees46", TEXTS["rees46"])) == [
        {"type": "browse", "occurred_at": 1580515200000, **shared, "category": "toys.puzzle"},
        {"type": "add_to_cart", "occurred_at": 1580515205000, **shared, "category": "toys.puzzle"},
        {"type": "purchase", "occurred_at": 1580515260000, **shared, "category": "77", "amount": 12.5, **money},
        {
            "type": "purchase",
            "occurred_at": 1580515320000,
            "user_id": "22",
            "session_id": "bbbb-2",
            "item_id": "9002",
            "category": "78",
            "amount": 0.0,
            **money,
        },
    ]


def test_online_retail(tmp_path: Path) -> None:
    rows = read(tmp_path, "online_retail", TEXTS["online_retail"])
    shared = {"type": "purchase", "user_id": "31000", "currency": "GBP"}
    bought = {"occurred_at": 1298970000000, "order_id": "700001", **shared}
    back = {"occurred_at": 1299058200000, "order_id": "C70002", **shared}
    assert events(rows)[:3] == [
        {**bought, "item_id": "A10", "amount": 7.65, "quantity": 3},
        {**bought, "item_id": "A11", "amount": 0.0, "quantity": 1},
        {**back, "item_id": "A10", "amount": -5.1, "quantity": 2},
    ]
    assert rows[3].key is None
    assert refusal(rows[3]) == "missing purchase user_id"


def test_online_retail_as_its_other_editions_write_it(tmp_path: Path) -> None:
    other = RETAIL.replace("InvoiceNo", "Invoice").replace("UnitPrice", "Price").replace("CustomerID", "Customer ID")
    other = other.replace("2011-03-01 09:00:00", "3/1/2011 9:00").replace("31000.0", "31000")
    assert (
        events(read(tmp_path, "online_retail", other.encode()))[:3]
        == events(read(tmp_path, "online_retail", TEXTS["online_retail"]))[:3]
    )


def test_cdnow_is_sorted_by_day_and_stably(tmp_path: Path) -> None:
    rows = read(tmp_path, "cdnow", TEXTS["cdnow"])
    assert [(e["user_id"], e["occurred_at"], e["amount"], e["quantity"]) for e in events(rows)] == [
        ("00001", 1577836800000, 11.0, 1),
        ("00002", 1577836800000, 9.99, 1),
        ("00002", 1577923200000, 0.0, 3),
        ("00001", 1578009600000, 20.5, 2),
    ]
    assert {e["currency"] for e in events(rows)} == {"USD"}
    without = CDNOW.split("\n", 1)[1].encode()
    assert read(tmp_path, "cdnow", without) == rows


def test_cdnow_rows_without_a_day_stay_beside_their_neighbour(tmp_path: Path) -> None:
    rows = read(tmp_path, "cdnow", CDNOW.replace("20200102", "2020-1-2").encode() + b"nonsense\n")
    assert [b"2020-1-2" in (row.value or b"") for row in rows] == [False, True, False, False, False]
    assert "occurred_at" in refusal(rows[1])
    assert rows[3].value == b"nonsense"
    assert rows[4].timestamp == 1578009600000


def test_jsonl_passes_bytes_through(tmp_path: Path) -> None:
    content = JSONL + b'{"event_id":"e3","user_id":"c"}\nno json\n[1]\n\n\xff\xfe\n{"user_id":5}\n' + b"[" * 3_000
    rows = read(tmp_path, "jsonl", content)
    assert [row.value for row in rows] == content.split(b"\n")
    assert [row.key for row in rows] == [b"a", b"b", b"c", *[None] * 6]
    assert [row.timestamp for row in rows] == [1600000000000] + [1600000001000] * 8


def test_jsonl_with_an_arrival_field(tmp_path: Path) -> None:
    content = (
        b'{"user_id":"a","occurred_at":1600000000000,"seen":"2020-09-14T00:00:00Z"}\n'
        b'{"user_id":"a","occurred_at":1600000001000}\n'
        b'{"user_id":"a","occurred_at":1,"seen":1600041600001}\n'
    )
    rows = read(tmp_path, "jsonl", content, time_field="seen")
    assert [row.timestamp for row in rows] == [1600041600000, 1600041600000, 1600041600001]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("change", ["gzip", "crlf", "bom", "no last newline", "two gzip members"])
def test_packaging_makes_no_difference(tmp_path: Path, format: str, change: str) -> None:
    text = TEXTS[format]
    middle = text.index(b"\n") + 3
    content = {
        "gzip": gzip.compress(text),
        "crlf": text.replace(b"\n", b"\r\n"),
        "bom": b"\xef\xbb\xbf" + text,
        "no last newline": text.rstrip(b"\n"),
        "two gzip members": gzip.compress(text[:middle]) + gzip.compress(text[middle:]),
    }[change]
    assert read(tmp_path, format, content) == read(tmp_path, format, text)


@pytest.mark.parametrize("format", ["rees46", "online_retail", "taobao"])
def test_columns_are_found_by_name(tmp_path: Path, format: str) -> None:
    table = [line.rsplit(b",", 3) for line in TEXTS[format].splitlines()]
    moved = b"\n".join(b",".join((*row[1:], row[0], b"more")) for row in table)
    assert events(read(tmp_path, format, moved)) == events(read(tmp_path, format, TEXTS[format]))


@pytest.mark.parametrize("format", FORMATS)
def test_equal_rows_are_one_event_and_others_are_not(tmp_path: Path, format: str) -> None:
    body = TEXTS[format].split(b"\n", 1)[1] if format != "jsonl" else JSONL
    rows = read(tmp_path, format, TEXTS[format] + body)
    ids = [orjson.loads(row.value or b"")["event_id"] for row in rows]
    assert len(rows) == 2 * len(set(ids)) == 2 * len({row.value for row in rows})


@pytest.mark.parametrize("format", FORMATS)
def test_mapped_rows_are_events(tmp_path: Path, format: str) -> None:
    rows = read(tmp_path, format, TEXTS[format])
    for row in rows[:3] if format == "online_retail" else rows:
        EVENT.validate_json(row.value or b"")


@pytest.mark.parametrize(
    ("format", "line", "expected"),
    [
        ("taobao", b"11,501,7,pv", None),
        ("taobao", b"", None),
        ("taobao", b'11,"501,7,pv,1600000400', None),
        ("taobao", b"11,501,7,stare,1600000400", "union_tag_invalid"),
        ("taobao", b"11,501,7,pv,soon", "occurred_at"),
        ("taobao", b"11,501,7,pv,99999999999999999999", "occurred_at"),
        ("taobao", b"11,501,7,pv,999999999999999", "occurred_at"),
        ("taobao", b"11,501,7,pv,-1600000400", "occurred_at"),
        ("taobao", b",501,7,pv,1600000400", "user_id"),
        ("taobao", b"\xff\xfe,501,7,pv,1600000400", None),
        ("rees46", b"2020-02-01 00:02:00 UTC,remove_from_cart,9,8,,,1.0,22,s", "union_tag_invalid"),
        ("rees46", b"2020-02-31 00:02:00 UTC,view,9,8,,,1.0,22,s", "occurred_at"),
        ("rees46", b"2020-02-01 00:02:00 UTC,purchase,9,8,,,free,22,s", "amount"),
        ("rees46", b"2020-02-01 00:02:00 UTC,purchase,9,8,,,nan,22,s", "amount"),
        ("rees46", b"2020-02-01 00:02:00 UTC,purchase,9,8,,,inf,22,s", "amount"),
        ("rees46", b"2020-02-01 00:02:00 UTC,purchase,9,8,,,,22,s", "amount"),
        ("online_retail", b"1,A,LAMP,two,2011-03-05 09:00:00,1.0,31000.0,France", "quantity"),
        ("online_retail", b"1,A,LAMP,0,2011-03-05 09:00:00,1.0,31000.0,France", "quantity"),
        ("online_retail", b"1,A,LAMP,1,2011-03-05 09:00:00,1e300,31000.0,France", "amount"),
        ("online_retail", b"1,A,LAMP,1e200,2011-03-05 09:00:00,1e200,31000.0,France", "amount"),
        ("online_retail", b'1,A,"LAMP,1,2011-03-05 09:00:00,1.0,31000.0,France', None),
        ("cdnow", b" 00003 20200101 1", None),
        ("cdnow", b" 00003 20200101 -1 5.0", "quantity"),
        ("cdnow", b" 00003 20200101 1 five", "amount"),
    ],
)
def test_what_cannot_be_mapped_is_refused_by_the_schema(
    tmp_path: Path, format: str, line: bytes, expected: str | None
) -> None:
    """One record for the row, none lost; the line itself where it has not the shape of a row (`expected` None)."""
    rows = read(tmp_path, format, TEXTS[format] + line + b"\n")
    assert len(rows) == TEXTS[format].count(b"\n")
    sound = {row.value for row in read(tmp_path, format, TEXTS[format])}
    (row,) = [row for row in rows if row.value not in sound]
    if expected is None:
        assert row.value == line
        assert row.key is None
    assert (expected or "") in refusal(row)


def test_bytes_that_are_no_utf8_do_no_harm_where_nobody_reads_them(tmp_path: Path) -> None:
    line = b"700009,A13,CAF\xc9 CUP,1,2011-03-05 09:00:00,1.0,31000.0,France\n"
    row = read(tmp_path, "online_retail", TEXTS["online_retail"] + line)[-1]
    assert EVENT.validate_json(row.value or b"")["user_id"] == "31000"


@pytest.mark.parametrize(
    ("format", "content", "words"),
    [
        ("taobao", REES46.encode(), ("not a taobao file", "unix_ts", "event_time,event_type")),
        ("rees46", TAOBAO.encode(), ("not a rees46 file", "missing: event_time", "behavior")),
        ("online_retail", TAOBAO.encode(), ("not a online_retail file", "CustomerID", "behavior")),
        ("cdnow", TAOBAO.encode(), ("not a cdnow file", "number_of_cds", "behavior")),
        ("taobao", b"", ("empty", "unix_ts")),
        ("cdnow", b"", ("empty", "dollar_value")),
        ("online_retail", b"PK\x03\x04rest", ("zip archive or an Excel workbook",)),
        ("jsonl", b"PAR1rest", ("Parquet",)),
        ("nosuch", b"x", ("unknown format", "taobao, rees46, online_retail, cdnow, jsonl")),
    ],
)
def test_a_wrong_file_gets_one_clear_line(tmp_path: Path, format: str, content: bytes, words: tuple[str, ...]) -> None:
    with pytest.raises(SourceError) as refused:
        read(tmp_path, format, content)
    message = str(refused.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_missing_file_a_folder_and_a_needless_option(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere\.csv: no such file"):
        open_source("taobao", tmp_path / "nowhere.csv")
    with pytest.raises(SourceError, match="cannot be read"):
        open_source("jsonl", tmp_path)
    with pytest.raises(SourceError, match="jsonl only"):
        open_source("taobao", tmp_path / "nowhere.csv", time_field="x")


@pytest.mark.parametrize("damage", [-20, 0])
def test_a_damaged_gzip_file_ends_with_an_error_after_its_whole_rows(tmp_path: Path, damage: int) -> None:
    many = TAOBAO.encode() + b"".join(b"%d,1,1,pv,%d\n" % (i, 1600000400 + i) for i in range(150_000))
    packed = bytearray(gzip.compress(many))
    if damage:
        del packed[damage:]
    else:
        packed[-8:-4] = b"\0\0\0\0"  # the checksum
    (tmp_path / "data").write_bytes(packed)
    rows = open_source("taobao", tmp_path / "data").rows()
    count = 0
    with pytest.raises(SourceError, match="damaged or ends early"):
        for _ in rows:
            count += 1
    assert count > 50_000


def test_a_time_far_ahead_in_one_row_does_not_move_the_others(tmp_path: Path) -> None:
    rows = read(tmp_path, "taobao", TAOBAO.encode() + b"13,1,1,pv,4070908800\n11,501,7,pv,1600000400\n")
    assert [row.timestamp for row in rows][-2:] == [1600000300000, 1600000400000]


def test_an_endless_line_is_cut_and_the_next_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "BLOCK", 64)
    monkeypatch.setattr(lines, "MAX_LINE", 1_000)
    rows = read(tmp_path, "jsonl", JSONL + b'{"user_id":"' + b"x" * 5_000 + b'"}\n' + JSONL)
    assert [len(row.value or b"") for row in rows][2] == 1_000
    assert [row.value for row in rows][3:] == JSONL.split(b"\n")[:2]


def test_fingerprints_tell_files_apart(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(JSONL)
    before = open_source("jsonl", path).fingerprint
    assert before == open_source("jsonl", path).fingerprint
    path.write_bytes(JSONL.replace(b"e2", b"e3"))
    assert open_source("jsonl", path).fingerprint != before


def test_a_large_file_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").write_bytes(JSONL)
    monkeypatch.setattr(lines, "CHEAP_BYTES", 10)
    source = open_source("jsonl", tmp_path / "data")
    assert source.total is None
    assert len(list(source.rows())) == 2


@settings(max_examples=60, deadline=None)
@given(
    text=st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")), max_size=30),
    block=st.integers(1, 50),
)
def test_lines_are_those_of_split_in_any_blocks(
    tmp_path_factory: pytest.TempPathFactory, text: list[bytes], block: int
) -> None:
    path = tmp_path_factory.mktemp("lines") / "data"
    content = b"x" + b"\n".join(text)
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "BLOCK", block)
        found = [line for part in lines.line_blocks(path) for line in part]
        assert lines.count_lines(path) == len(found)
    expected = content.split(b"\n")
    assert found == [line.removesuffix(b"\r") for line in (expected[:-1] if not expected[-1] else expected)]
