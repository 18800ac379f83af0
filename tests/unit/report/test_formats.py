import pytest

from lightpaff.report import formats


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (formats.points(0.9249), "92.5"),
        (formats.points(-0.0004), "0.0"),
        (formats.points(-0.123), "−12.3"),
        (formats.signed_points(0.001), "+0.1"),
        (formats.signed_points(-0.0001), "+0.0"),
        (formats.signed_interval(-0.009, 0.011), "[−0.9, +1.1]"),
        (formats.interval(0.909, 0.941), "[90.9, 94.1]"),
        (formats.plain(38.014), "38.01"),
        (formats.plain(412.34), "412.3"),
        (formats.plain(1234.5), "1,234"),
        (formats.plain(0.31, like=412.0), "0.3"),
        (formats.signed_plain(-3.2), "−3.20"),
        (formats.signed_plain(-0.001), "+0.00"),
        (formats.percent(0.983), "98.3 %"),
        (formats.ratio(6.24), "6.2"),
        (formats.ratio(120.4), "120"),
        (formats.count(109_482_240), "109.5M"),
        (formats.count(17_400_000), "17.4M"),
        (formats.count(812), "812"),
        (formats.flops(1.3e15), "1.3 PFLOP"),
        (formats.flops(4.2e14), "420 TFLOP"),
        (formats.flops(12.0), "12 FLOP"),
        (formats.megabytes(437_958_648), "438 MB"),
        (formats.megabytes(25_733_120), "25.7 MB"),
        (formats.megabytes(12_345), "0.01 MB"),
        (formats.milliseconds(0.4567), "0.46 ms"),
        (formats.milliseconds(81.42), "81.4 ms"),
        (formats.per_second(1234.5), "1,234"),
        (formats.per_second(3.25), "3.2"),
        (formats.duration(59.97), "1 min 00 s"),
        (formats.duration(3.21), "3.2 s"),
        (formats.duration(3599.6), "1 h 00 min"),
        (formats.duration(3900), "1 h 05 min"),
        (formats.fact(75_000), "75,000"),
        (formats.fact(0.31), "0.31"),
        (formats.joined(["a", "b", "c"]), "a, b and c"),
        (formats.joined(["a"]), "a"),
        (formats.comparison_name("student", "tfidf"), "Student − TF-IDF"),
        (formats.comparison_name("student", "control"), "Student − control"),
        (formats.moment("2026-11-22T18:30:05+00:00"), "2026-11-22 18:30 UTC"),
    ],
)
def test_numbers_look_as_they_should(written: str, expected: str) -> None:
    assert written == expected
