"""What a failure means: statuses and error events become errors of the ``CopilotError`` family."""

import re
from typing import Any, Callable, Dict, Iterable, Mapping, Optional, Tuple, Type
from urllib.parse import urlsplit

from copilot_sync.errors import (
    AuthenticationError,
    CopilotError,
    InvalidRequestError,
    ModelNotAvailableError,
    NetworkError,
    NotFoundError,
    PermissionDeniedError,
    ProtocolError,
    QuotaExceededError,
    RateLimitError,
    ServerError,
    WrongHostError,
)
from copilot_sync.events import ErrorEvent
from copilot_sync.protocol.events import read_error
from copilot_sync.protocol.limits import (
    asks_to_come_again,
    codes_of,
    is_lasting,
    limit_of,
    limit_of_codes,
    limit_of_words,
    retry_after,
    snake_case,
)
from copilot_sync.protocol.requests import Request
from copilot_sync.protocol.untrusted import RawReply, clean, decoded
from copilot_sync.times import in_words

#: In the host or the path of an address: the page where people sign in, the service's own or a company's.
_LOGIN = re.compile(r"(^|/)(login|sign[-_]?in|sso|saml2?|sessions?)([/.]|$)", re.IGNORECASE)
#: Reasons that tell no more than the status does.
_SAYS_NOTHING = re.compile(r"\W*(null|error|unauthorized|forbidden|not found|unprocessable \w+)?\W*", re.IGNORECASE)
#: Reasons that signing in again takes away, and reasons that it does not, whatever else they say.
_SIGNED_OUT = re.compile(
    r"sign in|log in|(not|be) (sign|logg)ed in|authenticat|credential|session|expired", re.IGNORECASE
)
_NOT_ALLOWED = re.compile(
    r"saml|\bsso\b|single sign|organi[sz]ation|enterprise|access|polic|licen[cs]e|subscri|plan\b|seat|quota|limit"
    r"|disabled|enabled|suspend|block|billing|support|available",
    re.IGNORECASE,
)
#: Codes and sentences that refuse a model, and words that make a sentence one about what was sent to it. A model can
#: be refused in words that nobody knows yet, and an error can speak of a model and mean something else: "the model
#: produced invalid content". So what is said of the model has to stand next to it.
_NO_MODEL_CODE = re.compile(
    r"(?:unsupported|unknown|invalid|no_access_to|unsupported_api_for)_?model"
    r"|model_?(?:is_?)?(?:not_?(?:supported|found|available|enabled|allowed|exist|valid|accessible)"
    r"|un(?:supported|known|available)|retired|deprecated|disabled|disallowed|removed|access_denied|forbidden|restricted)"
)
_STATE = (
    "unknown|unsupported|unavailable|invalid|retired|deprecated|disabled|removed|sunset|discontinued|decommissioned|gone"
    "|restricted|limited|denied|forbidden"
)
_NOT = r"(?:not|no longer|\w+n['\u2019]t)"
_WORDS = r"\W+(?:[\w'\u2019]+\W+)"
_MODEL = r"(?<![\w/-])model(?![\w/-])"
_NO_MODEL = re.compile(
    rf"{_MODEL}\W+(?:(?:is|was|has|been|does|can|could|id|name|access|currently)\W+){{0,4}}"
    rf"(?:(?:{_STATE})\b|{_NOT}{_WORDS}{{0,2}}"
    r"(?:supported|available|found|enabled|allowed|exists?|recogni[sz]ed|valid|accessible|included|used|offered)\b)"
    rf"|\b(?:no such|{_STATE}){_WORDS}{{0,3}}{_MODEL}"
    rf"|\b{_NOT}{_WORDS}{{0,3}}(?:access|include|offer|support|allow|permit){_WORDS}{{0,2}}{_MODEL}"
    rf"|\bupgrade{_WORDS}{{0,6}}{_MODEL}",
    re.IGNORECASE,
)
_ABOUT_THE_MESSAGE = re.compile(
    r"\btokens?\b|\bcontext|\blength\b|\blong\b|\blarge\b|\blimits?\b|\bimages?\b|\bvision\b|\binputs?\b|\bcontent\b",
    re.IGNORECASE,
)
_FILTERED = re.compile(r"content_?(?:filter|policy)|responsible_?ai")
#: The stages of requests that carry cookies instead of a token.
_WITH_COOKIES = ("token", "quota")
#: What limits are called.
_LIMITS: Dict[Type[RateLimitError], str] = {
    RateLimitError: "too many requests: slow down",
    QuotaExceededError: "the account's quota is used up",
}
#: Seconds: the shortest wait whose end is told, and what is no time that anybody means.
_LONG_WAIT = 60.0
_ENDLESS = 10 * 366 * 86400.0
#: What the error of a wrong host advises as long as it is not known which one is right.
_HOSTS = "https://api.business.githubcopilot.com or https://api.enterprise.githubcopilot.com, as the plan is"
_WRONG_HOST = f"the token belongs to another API host: set api_url (or COPILOT_SYNC_API_URL) to {_HOSTS}"
_STATUSES: Dict[int, Tuple[Callable[..., CopilotError], str]] = {
    400: (InvalidRequestError, "the service found the request wrong"),
    401: (
        AuthenticationError,
        "the token was refused: sign in again, or give another api_key, as the one that was pasted may have expired",
    ),
    402: (QuotaExceededError, _LIMITS[QuotaExceededError]),
    403: (AuthenticationError, "access was denied: the account's plan or a policy may not allow Copilot Chat"),
    404: (NotFoundError, "the service does not know this address"),
    408: (ServerError, "the service gave up waiting for the request"),
    409: (ServerError, "the service asks to try again"),
    413: (InvalidRequestError, "the request is too large for the service"),
    421: (WrongHostError, _WRONG_HOST),
    422: (InvalidRequestError, "the service found the request wrong"),
    424: (ServerError, "something that the service depends on failed"),
    425: (ServerError, "the service asks to try again"),
    429: (RateLimitError, _LIMITS[RateLimitError]),
    466: (InvalidRequestError, "the service finds this client too old: upgrade copilot-sync"),
    499: (ServerError, "the service cancelled the request"),
}
_NOT_AVAILABLE = "the service does not answer with this model"
_CODES: Tuple[Tuple[str, Callable[..., CopilotError]], ...] = (
    ("unauthorized", AuthenticationError),
    ("forbidden", AuthenticationError),
    ("notfound", NotFoundError),
    ("contentfilter", InvalidRequestError),
    ("responsibleai", InvalidRequestError),
    ("badrequest", InvalidRequestError),
    ("invalid", InvalidRequestError),
)


def error_of_status(
    request: Request, reply: RawReply, *, now: float, mask: Callable[[str], str], proven: bool = False
) -> Optional[CopilotError]:
    """Turn a reply's status into the error it means; ``None`` for success.

    Args:
        request: What was asked.
        reply: What came; its body may be empty or cut.
        now: The wall clock, in seconds since 1970, for a server that sends no ``Date``.
        mask: Takes the secrets out of the server's words.
        proven: Whether the service has accepted the credentials before.
    """
    status = reply.status
    if 200 <= status < 300:
        return None
    told = read_error(decoded(reply.body))
    words, codes = clean(mask(told.message)), codes_of(told)
    facts: Dict[str, Any] = {
        "stage": request.stage,
        "status": status,
        "request_id": _request_id(reply, mask),
    }
    if 300 <= status < 400:
        return _redirect_error(reply, mask, facts)
    if status == 407:
        return NetworkError(
            "the proxy wants a user name and a password" + _said(words), may_have_been_sent=False, **facts
        )
    limit = limit_of(reply, codes, words)
    if limit is not None:
        seconds = retry_after(reply.headers, now)
        return limit(_LIMITS[limit] + _not_before(seconds, now) + _said(words), retry_after=seconds, **facts)
    if request.stage == "quota" and status == 404:
        words_of_ours = "github.com knows no quota: this account has no Copilot, or the cookies are not valid any more"
        return NotFoundError(words_of_ours + _said(words), **facts)
    if request.stage in _WITH_COOKIES and status in (401, 403, 404, 422):
        return no_token_error(
            "github.com refused the cookies",
            "sign in again and renew user_session, and see that the account may use Copilot Chat",
            words,
            reply,
            facts,
        )
    if status == 503:
        facts["retry_after"] = retry_after(reply.headers, now)
        facts["not_processed"] = asks_to_come_again(reply.headers)
    if status == 403 and proven and request.stage == "message":
        words_of_ours = "the service forbids this message: a policy may not allow its model"
        return PermissionDeniedError(words_of_ours + _said(words), **facts)
    if status in (400, 422) and any(_FILTERED.search(snake_case(code)) for code in codes):
        return InvalidRequestError("the service's content filter refused the message" + _said(words), **facts)
    if status in (400, 404, 422) and request.stage == "message" and _refuses_model(codes, words, request.model):
        return ModelNotAvailableError(_NOT_AVAILABLE + _said(words), model=request.model, **facts)
    if status == 404 and request.subject is not None:
        return NotFoundError(f"there is no conversation {clean(request.subject)!r}" + _said(words), **facts)
    kind, message = _kind_of_status(status)
    return kind(message + _said(words), **facts)


def name_host(error: WrongHostError, api_url: Optional[str], refused: str) -> None:
    """Put the host that the account's page names into the error of a host that refused the token.

    Args:
        error: What the host's reply means.
        api_url: The host that the page names, ``None`` if it is not known.
        refused: The host that refused the token.
    """
    words = str(error.args[0])
    if api_url == refused:
        words = words.replace(_WRONG_HOST, f"the token belongs to another API host, but the page names {refused}")
    elif api_url is not None:
        words = words.replace(_HOSTS, f"{api_url}, which the account's page names")
    error.api_url, error.args = api_url, (words,)


def _refuses_model(codes: Iterable[str], words: str, model: str) -> bool:
    """Whether a refusal is about the model, by its code or its words."""
    if any(_NO_MODEL_CODE.search(snake_case(code)) for code in codes):
        return True
    name = re.escape(model).replace(r"\-", "[- ]")
    words, mentions = (
        re.subn(rf"(?<![\w.-]){name}(?![\w-])", "model", words, flags=re.IGNORECASE) if model else (words, 0)
    )
    # Errors do not mention a model without a reason, unless its name is a word like any other, such as "auto".
    is_named = bool(mentions) and not model.isalpha()
    return (is_named or _NO_MODEL.search(words) is not None) and _ABOUT_THE_MESSAGE.search(words) is None


def _kind_of_status(status: int) -> Tuple[Callable[..., CopilotError], str]:
    if status in _STATUSES:
        return _STATUSES[status]
    if 400 <= status < 500:
        return InvalidRequestError, "the service refused the request"
    if 500 <= status < 600:
        return ServerError, "the service failed"
    return ProtocolError, "the reply has a status that means nothing here"


def _redirect_error(reply: RawReply, mask: Callable[[str], str], facts: Dict[str, Any]) -> CopilotError:
    try:
        target = urlsplit(reply.headers.get("location", ""))
    except ValueError:
        target = urlsplit("")
    if _LOGIN.search(target.netloc) or _LOGIN.search(target.path):
        return AuthenticationError(
            "the service sent the request to its login page: the credentials are not valid any more", **facts
        )
    place = clean(mask(f"{target.netloc.rpartition('@')[2]}{target.path}")) or "nowhere"
    return ProtocolError(f"the reply redirects to {place}, and redirects are not followed", **facts)


def _request_id(reply: RawReply, mask: Callable[[str], str]) -> Optional[str]:
    return clean(mask(reply.headers.get("x-github-request-id") or reply.headers.get("x-request-id") or "")) or None


def error_of_event(
    event: ErrorEvent, mask: Callable[[str], str], what: str = "the service failed in the middle of the answer"
) -> CopilotError:
    """Turn an error event into the error that its code says, a ``ServerError`` if it says nothing."""
    codes = codes_of(event)
    kind: Callable[..., CopilotError] = limit_of_codes(codes) or _kind_of_code(event.code)
    if any(_NO_MODEL_CODE.search(snake_case(code)) for code in codes):
        kind, what = ModelNotAvailableError, _NOT_AVAILABLE
    if kind is ServerError:
        kind = limit_of_words(event.message) or kind
    elif kind is RateLimitError and is_lasting(event.message):
        kind = QuotaExceededError
    return kind(what + _said(clean(mask(event.message))), stage="stream")


def _kind_of_code(code: str) -> Callable[..., CopilotError]:
    if re.fullmatch(r"[0-9]{3}", code):
        return _STATUSES.get(int(code), (ServerError,))[0]
    letters = re.sub(r"[^a-z]", "", code.lower())
    return next((kind for word, kind in _CODES if word in letters), ServerError)


def no_token_error(
    what: str, advice: str, words: str, reply: RawReply, facts: Mapping[str, Any]
) -> AuthenticationError:
    """The error for a token or a quota that was not given: with the service's reason, and advice if that mends it."""
    is_vague = bool(_SAYS_NOTHING.fullmatch(words) or _SIGNED_OUT.search(words)) or reply.status == 401
    is_reason = bool(read_error(decoded(reply.body)).data) and not is_vague
    if is_reason or _NOT_ALLOWED.search(words):
        advice = "github.com gives this account none"
    return AuthenticationError(f"{what}: {advice}{_said(words)}", **facts)


def _not_before(seconds: Optional[float], now: float) -> str:
    """Say when a long wait ends, by the clock."""
    if seconds is None or not _LONG_WAIT <= seconds < _ENDLESS:
        return ""
    return f", not before {in_words(now + seconds)}"


def _said(words: str) -> str:
    return f" (the server said: {words})" if words else ""


def server_words(reply: RawReply, mask: Callable[[str], str]) -> str:
    """What the server said about a failure, without secrets and control characters, bounded in length."""
    return clean(mask(read_error(decoded(reply.body)).message))
