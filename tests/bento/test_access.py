"""Access: who is let in, what they may do, and where a service without tokens may listen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.bento.access import ADMIN, ANY, FEEDBACK, SCORE, Access, Role, is_loopback, refuse_exposure
from riverdelta.core.errors import ConfigurationError, Forbidden, Unauthenticated
from riverdelta.core.hashing import digest, id64
from riverdelta.core.senders import names
from riverdelta.core.settings import Settings

TOKENS = {role: f"{role}-token-of-the-shop" for role in Role}
ACCESS = Access({role: [token] for role, token in TOKENS.items()})
ALL = {f"{role}_tokens": token for role, token in TOKENS.items()}


def bearer(token):
    return [f"Bearer {token}"]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("name", "need"), [("ANY", ANY), ("SCORE", SCORE), ("FEEDBACK", FEEDBACK), ("ADMIN", ADMIN)])
def test_a_role_may_do_its_own_and_admin_may_do_everything(role, name, need):
    caller = ACCESS.caller(bearer(TOKENS[role]), "10.0.0.7")
    if name == "ANY" or role == Role.ADMIN or role.value.upper() == name:
        caller.need(need, "this")
    else:
        with pytest.raises(Forbidden, match=rf"this needs a token of the role .*; this one has {role}"):
            caller.need(need, "this")


def test_a_token_may_have_two_roles_and_a_role_two_tokens():
    both, second = "token-of-two-roles-1", "second-token-of-score"
    access = Access({Role.SCORE: [both, second], Role.FEEDBACK: [both]})
    access.caller(bearer(both), "").need(SCORE, "")
    access.caller(bearer(both), "").need(FEEDBACK, "")
    access.caller(bearer(second), "").need(SCORE, "")
    assert access.missing == ["RIVERDELTA_ADMIN_TOKENS"]


def test_a_role_without_a_token_is_closed_once_another_has_one():
    access = Access({Role.SCORE: [TOKENS[Role.SCORE]]})
    with pytest.raises(Unauthenticated):
        access.caller([], "127.0.0.1")
    with pytest.raises(Forbidden):
        access.caller(bearer(TOKENS[Role.SCORE]), "127.0.0.1").need(ADMIN, "POST /admin/rollback")


def test_the_source_is_the_token_s_wherever_it_comes_from_and_without_tokens_the_address_s():
    token = TOKENS[Role.FEEDBACK]
    sources = {ACCESS.caller(bearer(token), peer).source for peer in ("10.0.0.7", "10.0.0.8")}
    assert len(sources) == 1
    assert sources != {ACCESS.caller(bearer(TOKENS[Role.SCORE]), "10.0.0.7").source}
    assert Access({}).caller([], "127.0.0.1").source == id64("127.0.0.1")
    assert Access({}).caller(["whatever"], "127.0.0.1").roles == ANY


REFUSED = [
    [],
    [""],
    ["Bearer"],
    ["Bearer "],
    bearer("x"),
    [f"Basic {TOKENS[Role.ADMIN]}"],
    [TOKENS[Role.ADMIN]],
    bearer(TOKENS[Role.ADMIN][:-1]),
    bearer(TOKENS[Role.ADMIN] + "x"),
    bearer(TOKENS[Role.ADMIN].upper()),
    bearer(TOKENS[Role.ADMIN] + " " + TOKENS[Role.ADMIN]),
    bearer(TOKENS[Role.ADMIN]) * 2,
    bearer("é" * 40),
    bearer("a" * 1_000_000),
]


@pytest.mark.parametrize("authorization", REFUSED, ids=lambda a: " ".join(a)[:30])
def test_whatever_is_no_known_token_is_refused_and_not_repeated(authorization):
    with pytest.raises(Unauthenticated) as caught:
        ACCESS.caller(authorization, "10.0.0.7")
    assert len(str(caught.value)) < 100
    assert "shop" not in str(caught.value)


@given(st.lists(st.text(max_size=60), max_size=3))
def test_any_text_is_refused_by_name(authorization):
    with pytest.raises(Unauthenticated):
        ACCESS.caller(authorization, "10.0.0.7")


def test_the_scheme_is_taken_in_any_case():
    for scheme in ("bearer", "BEARER", "Bearer  "):
        ACCESS.caller([f" {scheme} {TOKENS[Role.SCORE]} "], "").need(SCORE, "")


@pytest.mark.parametrize(
    ("token", "said"),
    [("short", "has 5 characters"), ("sixteen letters!", "has invalid characters"), ("Abc/=", "has 5 characters")],
)
def test_a_token_that_is_none_is_named_by_its_place_alone(token, said):
    with pytest.raises(ConfigurationError, match=f"token 2 of RIVERDELTA_FEEDBACK_TOKENS {said}") as caught:
        Access.of(Settings(feedback_tokens=f"a-good-token-of-the-shop, {token}"))
    assert token not in str(caught.value)


def test_a_name_without_a_token_is_named():
    with pytest.raises(
        ConfigurationError, match="token 1 of RIVERDELTA_SCORE_TOKENS has the name 'shop' and nothing after the ="
    ):
        Access.of(Settings(score_tokens="shop="))


def test_the_settings_name_tokens_separated_by_commas():
    access = Access.of(Settings(score_tokens=" first-token-of-score ,, second-token-of-score,"))
    for token in ("first-token-of-score", "second-token-of-score"):
        access.caller(bearer(token), "").need(SCORE, "")


def of(**given):
    return Access.of(Settings(**given))


def test_tokens_of_one_name_are_one_sender_so_that_rotation_changes_nothing():
    before = of(feedback_tokens="shop=the-old-token-of-the-shop,app=the-token-of-the-app")
    both = of(feedback_tokens="shop=the-old-token-of-the-shop , shop = the-new-token-of-the-shop==,app=the-token-of-the-app")
    after = of(feedback_tokens="app=the-token-of-the-app,shop=the-new-token-of-the-shop==")
    callers = [
        access.caller(bearer(token), "10.0.0.7")
        for access, token in (
            (before, "the-old-token-of-the-shop"),
            (both, "the-old-token-of-the-shop"),
            (both, "the-new-token-of-the-shop=="),
            (after, "the-new-token-of-the-shop=="),
        )
    ]
    assert {(caller.source, caller.name, str(caller)) for caller in callers} == {(id64("shop"), "shop", "shop")}
    other = after.caller(bearer("the-token-of-the-app"), "")
    assert (other.source, other.name) == (id64("app"), "app")


@pytest.mark.parametrize("token", ["a-token-without-a-name", "a-token-that-ends-in-two==", "a-token-that-ends-in-one="])
def test_a_token_without_a_name_is_the_sender_that_it_was(token):
    caller = of(feedback_tokens=token).caller(bearer(token), "")
    assert (caller.source, caller.name) == (id64(digest(token.encode(), size=32)), None)
    named = of(feedback_tokens=f"shop={token}").caller(bearer(token), "")
    assert (named.source, named.name) == (id64("shop"), "shop")


def test_a_token_of_several_roles_has_one_name_wherever_it_is_written():
    token = "a-token-of-two-roles-1"
    caller = of(score_tokens=token, feedback_tokens=f"shop={token}").caller(bearer(token), "")
    assert (caller.name, caller.roles) == ("shop", {Role.SCORE, Role.FEEDBACK})
    with pytest.raises(ConfigurationError, match="token 1 of RIVERDELTA_FEEDBACK_TOKENS has the name 'shop', and 'app'"):
        of(score_tokens=f"app={token}", feedback_tokens=f"shop={token}")


@pytest.mark.parametrize("name", ["", "other", "-shop", "sh op", "sh\xf6p", "sh/op", "s" * 33, "0f" * 32])
def test_a_name_that_is_none_is_refused_by_its_place_and_not_shown(name):
    with pytest.raises(ConfigurationError, match="the name of token 2 of RIVERDELTA_FEEDBACK_TOKENS") as caught:
        of(feedback_tokens=f"a-good-token-of-the-shop,{name}=a-token-of-the-shop-2")
    assert len(name) < 8 or name not in str(caught.value)
    assert "a-token-of-the-shop-2" not in str(caught.value)


def test_names_are_those_of_every_role_and_at_most_a_hundred():
    many = ",".join(f"s{i}=a-token-of-sender-number-{i}" for i in range(150))
    assert len(names(Settings(feedback_tokens=many))) == 100
    given = Settings(score_tokens="web=a-token-of-the-web-1", feedback_tokens="shop=a-token-of-the-shop,plain-token-of-nobody")
    assert names(given) == {id64("web"): "web", id64("shop"): "shop"}


EXPOSED = {
    "http on all addresses": ({}, "0.0.0.0", "HTTP would be served on 0.0.0.0(.|\n)*\n  bentoml serve --host 127.0.0.1 a:B\n"),
    "http on all addresses of the sixth version": ({}, "::", "HTTP would be served on ::"),
    "http on an address of a network": ({}, "192.168.1.7", "HTTP would be served on 192.168.1.7"),
    "grpc on all addresses": ({"grpc_host": "0.0.0.0"}, "127.0.0.1", "gRPC .*\n.*\n  export RIVERDELTA_GRPC_HOST=127.0.0.1"),
    "grpc on a name": ({"grpc_host": "ranker.example.org"}, None, "gRPC would be served on ranker.example.org"),
    "tokens that are only space": (dict.fromkeys(ALL, "\t,\n"), "0.0.0.0", "without RIVERDELTA_SCORE_TOKENS"),
    "one role without a token": (
        {**ALL, "admin_tokens": " , "},
        "0.0.0.0",
        r"without RIVERDELTA_ADMIN_TOKENS:(.|\n)*=\$\(openssl",
    ),
}


@pytest.mark.parametrize("name", EXPOSED)
def test_a_service_that_others_reach_without_a_token_is_refused_with_what_to_type(name):
    given, host, message = EXPOSED[name]
    with pytest.raises(ConfigurationError, match=message) as caught:
        refuse_exposure(Settings(**given), host, "a:B")
    assert "of-the-shop" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ({}, "127.0.0.1"),
        ({}, "::1"),
        ({}, None),
        ({"grpc_host": "0.0.0.0", "grpc_port": 0}, "localhost"),
        ({"grpc_host": "[::1]"}, "127.0.0.1"),
        ({**ALL, "grpc_host": "0.0.0.0"}, "0.0.0.0"),
    ],
)
def test_loopback_needs_no_token_and_all_roles_with_tokens_may_listen_anywhere(given, host):
    refuse_exposure(Settings(**given), host)


def test_an_address_of_the_sixth_version_that_holds_one_of_the_fourth_counts_as_that():
    assert is_loopback("::ffff:127.0.0.1")
    assert not is_loopback("::ffff:10.0.0.7")
