"""Templates: what they print, what they refuse, and that none runs for long or makes much."""

import time
from typing import Any

import pytest

from connector.mapping.expressions import EvaluationError, InvalidSourceError
from connector.mapping.templates import compile_template

VALUE: dict[str, Any] = {
    "customer": {"first_name": "Ada", "nick": None},
    "items": [{"name": "tea", "price": "4.50"}, {"name": "cup", "price": 12}],
    "numbers": list(range(200)),
    "long": "a" * 15_000,
    "big": (1 << 63) - 1,
    "large": 1e200,
    "infinite": "-inf",
    "at": "2026-01-31T08:00:00Z",
    "done": True,
}


def rendered(text: str) -> str:
    return compile_template(text).evaluate({"value": VALUE, "headers": {"x-tenant": "t1"}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hi {{ value.customer.first_name }}!", "Hi Ada!"),
        ("Hi {{ value.customer.last_name | default('there') }}", "Hi there"),
        ("Hi {{ value.customer.nick | default('there') }}", "Hi there"),
        ("Hi {{ value.nobody.at.all | default('there') }}", "Hi there"),
        ("{{ headers['x-tenant'] }}", "t1"),
        ("{{ value.nobody[0] | default('there') }} {{ value.nobody['at'].all | default('here') }}", "there here"),
        ("{% for item in value.items %}{{ loop.index }} {{ item.name }} {% endfor %}", "1 tea 2 cup "),
        ("{% if value.customer.vip %}VIP{% else %}you{% endif %}", "you"),
        ("{% if value.state == 'new' %}new{% else %}old{% endif %}", "old"),
        ("{{ value.done }}", "true"),
        ("{{ value.items[1].name }} {{ value.numbers[-1] }}", "cup 199"),
        ("{{ 1 + 2 * 3 }} {{ 'a' + 'b' }} {{ 'a' ~ 1 }}", "7 ab a1"),
        ("{% set name = value.customer.first_name %}{{ name | upper }}", "ADA"),
        ("{% raw %}{{first_name}}{% endraw %}", "{{first_name}}"),
        ("{{ value.items[0].price | currency('USD') }}", "$4.50"),
        ("{{ 1234.5 | currency('EUR', 'de-DE') }}", "1.234,50 €"),
        ("{{ 1234.5 | number('fr_FR') }}", "1 234,5"),
        ("{{ value.at | date('Asia/Tokyo', 'EEE d MMM') }}", "Sat 31 Jan"),
        ("{{ value.at | datetime('America/New_York', 'yyyy-MM-dd HH:mm') }}", "2026-01-31 03:00"),
        ("{{ 1769846400000 | time('Europe/Paris', 'HH:mm') }}", "09:00"),
        ("{{ 1769846400 | time('Europe/Paris', 'HH:mm') }}", "09:00"),
        ("{{ '2026-01-31' | date('America/New_York', 'short', 'en_GB') }}", "31/01/2026"),
        ("{{ value.at | time }}", "8:00 AM"),
        ("{{ value.at | datetime }}", "Jan 31, 2026, 8:00:00 AM"),
        ("{{ value.at | date('UTC', 'd\u202fMMM') }}", "31 Jan"),
        ("{{ '2026-01-31' | date('UTC', 'd\u202fMMM') }}", "31 Jan"),
        ("{{ (value.long | truncate(150, '') ~ (9.5 | currency('EUR', 'de_DE'))) | segments }}", "1"),
        ("{{ value.long | segments }}", "99"),
        ("{{ value.long | truncate_segments(2) | length }}", "306"),
        ("{{ value.long | truncate(10) }}", "aaaaaaa..."),
        ("{{ value.numbers[:3] | join(', ') }}", "0, 1, 2"),
        ("{{ 2.345 | round(1) }}", "2.3"),
        ("{{ (1769846400000000 // 1000) | date }} {{ (20484 * 86400) | date }}", "Jan 31, 2026 Jan 31, 2026"),
        ("{{ 12 | trim }} {{ '..x.' | trim('.') }} {{ 'aB c' | title }} {{ 'aB' | capitalize }}", "12 x Ab C Ab"),
    ],
)
def test_what_a_template_prints(text: str, expected: str) -> None:
    assert rendered(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ value.customer.last_name }}", "`last_name` is not there"),
        ("{{ value.nobody.at.all }}", "`nobody` is not there"),
        ("{{ value['order#'] }}", "`order#` is not there"),
        ("{{ value[value.customer.first_name] }}", "a field is not there"),
        ("{{ value.done }} {{ value.customer['nick'] }}", "`value.customer.nick` would print null; a `default` filter"),
        ("{{ value.customer }}", "`value.customer` would print an object"),
        ("{% for item in value.items %}{{ item }}{% endfor %}", "`item` would print an object"),
        ("{{ value.customer.nick | first }}", "a value is null"),
        ("{{ value.nobody | default(none) }}", "^would print null"),
        ("{{ 1769846400000000 | date }}", "seconds or milliseconds since 1970, and this is none; of microseconds"),
        ("{{ value.numbers }}", "would print a list"),
        ("{{ value.customer.nick | upper }}", "upper takes text, not null"),
        ("{{ value.customer | lower }}", "lower takes text, not a dict"),
        ("{{ value.numbers | title }}", "title takes text, not a list"),
        ("{{ value.done | capitalize }}", "capitalize takes text, not a bool"),
        ("{{ value.customer.nick | trim }}", "trim takes text, not null"),
        ("{{ value.customer.last_name | trim }}", "`last_name` is not there"),
        ("{{ value.price | currency('USD') }}", "a number, and `price` is not there"),
        ("{{ value.customer.nick | length }}", "a value is null, or of another type"),
        ("{% if value.customer.nick < 3 %}few{% endif %}", "a value is null, or of another type"),
        ("{{ 1e999 }}", "NameError"),
        ("{{ value.infinite | float }}", "would print a number that is not finite"),
        ("{{ value.infinite | float ~ '' }}", "would print a number that is not finite"),
        ("{{ value.large * value.large }}", "would print a number that is not finite"),
        ("{{ [-value.large * value.large] | join }}", "would print a number that is not finite"),
        ("{{ value.long | currency('USD') }}", "takes a number"),
        ("{{ 1 | currency('XXQ') }}", "does not know the code"),
        ("{{ 1 | currency('USD', 'xx_XX') }}", "no such locale"),
        ("{{ value.at | date('Mars/Olympus') }}", "no such zone"),
        ("{{ value.at | date('UTC', 'd MMM HH:mm') }}", "date has no time of day, which this pattern asks for"),
        ("{{ '2026-01-31' | date('UTC', 'HH:mm') }}", "date has no time of day, which this pattern asks for"),
        ("{{ value.at | time('UTC', 'd MMM') }}", "time has no date, which this pattern asks for; datetime has both"),
        ("{{ value.at | datetime('UTC', 'EEEEEEE') }}", "datetime does not know this pattern"),
        ("{{ '0001-01-01T00:00:00Z' | datetime('America/New_York') }}", "a time from the years 1 to 9999"),
        ("{{ '9999-12-31T23:59:59Z' | date('Asia/Tokyo') }}", "a time from the years 1 to 9999"),
        ("{{ value.long | date }}", "takes ISO 8601 text"),
        ("{{ '1712121912305' | date }}", "takes ISO 8601 text"),
        ("{{ '1712121912305' | datetime('Europe/Berlin') }}", "takes ISO 8601 text"),
        ("{{ value.done + 1 }}", "takes numbers"),
        ("{{ 1 + 'a' }}", r"\+ takes numbers or two texts"),
        ("{{ 'a' + value.big }}", r"\+ takes numbers or two texts"),
        ("{{ value.at - value.at }}", "- takes numbers$"),
        ("{{ 1 / value.numbers[0] }}", "ZeroDivisionError"),
        ("{% for x in value.long %}{% endfor %}", "runs over a list"),
        ("{{ value.long | truncate_segments(0) }}", "from 1 to 255"),
    ],
)
def test_a_template_that_has_no_text_for_a_record_says_why(text: str, said: str) -> None:
    template = compile_template(text)

    with pytest.raises(EvaluationError, match=said.replace("(", r"\(")) as caught:
        template.evaluate({"value": VALUE, "headers": {}})

    assert "aaaa" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "{% for a in value.numbers %}{% for b in value.numbers %}{% endfor %}{% endfor %}",
        "{% for a in value.numbers %}{{ value.long }}{% endfor %}",
        "{{ value.long }}{{ value.long }}",
        "{{ value.long ~ value.long }}",
        "{{ value.long + value.long }}",
        "{{ (value.long ~ value.long) | truncate(5) }}",
        "{{ ('x' ~ (value.long ~ value.long | length)) | truncate(5) ~ ((value.long ~ value.long) ~ '') | first }}",
        "{{ (value.long ~ value.long)['x'] | default('') }}",
        "{% set a = 'xx' %}" + "{% set a = a ~ a %}" * 60 + "{{ a | length }}",
        "{% set a = 9 %}" + "{% set a = a * a %}" * 60 + "{{ a }}",
        "{{ value.long | replace('a', value.long) }}",
        "{{ value.numbers | join(value.long) }}",
        "{{ 'x' * 10000000 }}",
        "{{ [1] * 10000000 }}",
        "{{ '%010000000d' % 1 }}",
        "{{ 5 | round(-1000000000) }}",
        "{{ value.big * value.big }}",
    ],
)
def test_a_template_that_would_run_on_or_grow_ends_soon(text: str) -> None:
    began = time.process_time()
    with pytest.raises((EvaluationError, InvalidSourceError)):
        rendered(text)

    assert time.process_time() - began < 1.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ value.items() }}", "must not call anything"),
        ("{{ range(10) }}", "must not call anything"),
        ("{{ ''.join(value.numbers) }}", "must not call anything"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "must not have a macro|must not call"),
        ("{% for x in value.tree recursive %}{{ x }}{% endfor %}", "must not have a recursive loop"),
        ("{% include 'x' %}", "must not include another template"),
        ("{% import 'x' as y %}", "must not import another template"),
        ("{% extends 'x' %}", "must not extend another template"),
        ("{% block x %}{% endblock %}", "must not have a block"),
        ("{{ 9 ** 9 ** 9 }}", r"must not have \*\*"),
        ("{{ value.x | center(1000000) }}", "no filter `center`"),
        ("{{ value.x | attr('__class__') }}", "no filter `attr`"),
        ("{{ value.x | limited_rounds }}", "no filter `limited_rounds`"),
        ("{{ value.x is callable }}", "no test `callable`"),
        ("{{ vlaue.x }}", "did you mean value?"),
        ("{{ value.first-name }}", r"a name with a hyphen stands in brackets, as in value\['e-mail'\]"),
        ("{{ self }}", "`self`, which does not exist"),
        ("{{ value.x ", "is not a template: unexpected end"),
        ("{{ value.x | curency('USD') }}", "did you mean currency?"),
        ("x" * 10_001, "more than 10,000 characters"),
        ("{{ " + "(" * 3_000 + "1" + ")" * 3_000 + " }}", "nested too deeply"),
    ],
)
def test_the_sandbox_refuses_what_it_must_when_it_compiles(text: str, said: str) -> None:
    with pytest.raises(InvalidSourceError, match=said):
        compile_template(text)


@pytest.mark.parametrize(
    "text",
    [
        "{{ value.__class__ }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ value.customer['__class__'] }}",
        "{{ value.items.append }}",
        "{{ value.items.index }}",
        "{{ value.long.index }}",
        "{{ value.long.format }}",
        "{% for x in value.items %}{{ loop.__init__ }}{% endfor %}",
    ],
)
def test_nothing_of_python_is_reached_through_data(text: str) -> None:
    with pytest.raises(EvaluationError, match="not there"):
        rendered(text)


def test_what_one_record_set_is_not_seen_by_the_next() -> None:
    template = compile_template("{% set x = value.a | default('none') %}{{ x }}")

    assert [template.evaluate({"value": value}) for value in ({"a": "1"}, {})] == ["1", "none"]


def test_where_a_template_is_wrong_is_reported() -> None:
    with pytest.raises(InvalidSourceError) as caught:
        compile_template("Hi\n{{ value.x | nope }}")

    assert caught.value.offset == 3
